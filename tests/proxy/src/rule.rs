//! What goes wrong, and for which requests.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// It waits this long before it goes on; it lands even if the client has gone by then.
    Delay(Duration),
    /// It lands, and its answer is lost: the connection is closed instead.
    DropAnswer,
    /// It lands twice; the client sees the second answer.
    Duplicate,
    /// It does not land: the connection is closed.
    Reset,
    /// The body of the answer breaks off half way, and the connection with it.
    Cut,
    /// The body of the answer is half as long, and so is its `Content-Length`; `Content-Range` stays.
    Short,
    /// The answer to a range is 200 and says nothing of a range, as of a middlebox that does not know them.
    IgnoreRange,
    /// One bit of the body of the answer is turned over.
    FlipAnswer,
    /// One bit of the body of the request is turned over.
    FlipRequest,
    /// It does not land: this is the answer.
    Answer(u16, String),
    /// It lands, and this is the answer nevertheless.
    AnswerAfter(u16, String),
    /// It waits until [`Proxy::release`](crate::Proxy::release), then lands.
    Hold,
    /// It lands, and its answer waits until [`Proxy::release`](crate::Proxy::release).
    HoldAnswer,
}

/// Which of the requests that a rule is about.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// This share of them, 0 to 1.
    Rate(f64),
    /// Those with these numbers; the first after the rule was made is 1.
    Numbers(RangeInclusive<u64>),
}

/// One rule. Of several that hit, the first is applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// HTTP method; empty: any.
    pub method: String,
    /// What the path and query contain.
    pub target: String,
    /// What `x-amz-target` contains (`PutItem`); empty: any, also none.
    pub operation: String,
    /// Which of them.
    pub when: When,
    /// What happens.
    pub fault: Fault,
}

impl Rule {
    /// `fault` for the first request with this method whose target contains `target`.
    pub fn once(method: &str, target: &str, fault: Fault) -> Self {
        Self::numbers(method, target, 1..=1, fault)
    }

    /// `fault` for the requests with these numbers.
    pub fn numbers(method: &str, target: &str, numbers: RangeInclusive<u64>, fault: Fault) -> Self {
        let (method, target, operation) = (method.to_owned(), target.to_owned(), String::new());
        Self { method, target, operation, when: When::Numbers(numbers), fault }
    }

    /// The same rule for this operation of DynamoDB alone.
    pub fn operation(mut self, operation: &str) -> Self {
        operation.clone_into(&mut self.operation);
        self
    }

    /// The same rule for a share of the requests.
    pub fn rate(mut self, rate: f64) -> Self {
        self.when = When::Rate(rate);
        self
    }

    pub(crate) fn is_about(&self, method: &str, target: &str, operation: Option<&str>) -> bool {
        (self.method.is_empty() || self.method == method)
            && target.contains(&self.target)
            && (self.operation.is_empty() || operation.is_some_and(|known| known.contains(&self.operation)))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay(time) => write!(f, "delay:{}", time.as_millis()),
            Self::DropAnswer => f.write_str("drop-answer"),
            Self::Duplicate => f.write_str("duplicate"),
            Self::Reset => f.write_str("reset"),
            Self::Cut => f.write_str("cut"),
            Self::Short => f.write_str("short"),
            Self::IgnoreRange => f.write_str("ignore-range"),
            Self::FlipAnswer => f.write_str("flip-answer"),
            Self::FlipRequest => f.write_str("flip-request"),
            Self::Answer(status, code) => write!(f, "answer:{status}:{code}"),
            Self::AnswerAfter(status, code) => write!(f, "answer-after:{status}:{code}"),
            Self::Hold => f.write_str("hold"),
            Self::HoldAnswer => f.write_str("hold-answer"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let status = |status: &str| match status.parse() {
            Ok(status @ 200..=599) => Ok(status),
            _ => Err(format!("{status:?} is no HTTP status")),
        };
        Ok(match parts[..] {
            ["delay", millis] => Self::Delay(Duration::from_millis(
                millis.parse().map_err(|_| format!("{millis:?} is no number of milliseconds"))?,
            )),
            ["drop-answer"] => Self::DropAnswer,
            ["duplicate"] => Self::Duplicate,
            ["reset"] => Self::Reset,
            ["cut"] => Self::Cut,
            ["short"] => Self::Short,
            ["ignore-range"] => Self::IgnoreRange,
            ["flip-answer"] => Self::FlipAnswer,
            ["flip-request"] => Self::FlipRequest,
            ["answer", number, code] => Self::Answer(status(number)?, code.to_owned()),
            ["answer-after", number, code] => Self::AnswerAfter(status(number)?, code.to_owned()),
            ["hold"] => Self::Hold,
            ["hold-answer"] => Self::HoldAnswer,
            _ => return Err(format!("unknown fault {text:?}")),
        })
    }
}

/// `FAULT [method=M] [target=T] [operation=O] [rate=R | numbers=A..B]`, words apart; without a share all of them.
impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let fault = words.next().ok_or("a rule begins with its fault")?.parse()?;
        let mut rule = Self::numbers("", "", 1..=u64::MAX, fault);
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is not name=value"))?;
            match name {
                "method" => value.clone_into(&mut rule.method),
                "target" => value.clone_into(&mut rule.target),
                "operation" => value.clone_into(&mut rule.operation),
                "rate" => {
                    let rate = value.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
                    rule.when = When::Rate(rate.ok_or_else(|| format!("rate {value:?} is not 0 to 1"))?);
                }
                "numbers" => {
                    let (from, to) = value.split_once("..").unwrap_or((value, value));
                    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
                    rule.when = When::Numbers(number(from)?..=number(to)?);
                }
                _ => return Err(format!("unknown {name:?}")),
            }
        }
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let rule: Rule = "answer:503:SlowDown method=PUT target=l0/ rate=0.25".parse().unwrap();
        let fault = Fault::Answer(503, "SlowDown".to_owned());
        assert_eq!(rule, Rule::once("PUT", "l0/", fault).rate(0.25));
        let rule: Rule = "drop-answer operation=PutItem numbers=3..4".parse().unwrap();
        assert_eq!(rule, Rule::numbers("", "", 3..=4, Fault::DropAnswer).operation("PutItem"));
        for wrong in
            ["", "explode", "delay:x", "answer:99:A", "cut rate=2", "cut numbers=a", "cut x=1", "cut x"]
        {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn faults_print_as_they_are_read() {
        for text in [
            "delay:20",
            "drop-answer",
            "duplicate",
            "reset",
            "cut",
            "short",
            "ignore-range",
            "flip-answer",
            "flip-request",
            "answer:409:A",
            "answer-after:500:B",
            "hold",
            "hold-answer",
        ] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
    }
}

//! Which form of answer a client takes (RFC 9110, `Accept`).

use tidelog_functions::{Problem, Request};

/// A form of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One object with the records in it.
    Json,
    /// A record a line.
    Ndjson,
    /// An Arrow stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

/// The first is what a client gets that does not mind.
const FORMS: [Form; 4] = [Form::Json, Form::Ndjson, Form::Arrow, Form::Parquet];

impl Form {
    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// What the client likes best; of forms that it likes as much, the one it names first.
    pub fn of(request: &Request) -> Result<Self, Problem> {
        let Some(accept) = request.header("accept").filter(|accept| !accept.trim().is_empty()) else {
            return Ok(Self::Json);
        };
        let ranges: Vec<(&str, f32)> = accept.split(',').filter_map(range).collect();
        let (mut best, mut quality) = (None, 0.0);
        for (range, q) in &ranges {
            let form = FORMS.into_iter().find(|form| matches(range, *form) && !refused(*form, &ranges));
            if form.is_some() && *q > quality {
                (best, quality) = (form, *q);
            }
        }
        best.ok_or_else(|| {
            let known = FORMS.map(Self::media_type).join(", ");
            let message = format!("accept {accept:?} allows no form of answer that there is: {known}");
            let problem = Problem::new(406, "not_acceptable", message);
            Problem { field: Some("accept".to_owned()), ..problem }
        })
    }
}

fn range(text: &str) -> Option<(&str, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().filter(|range| !range.is_empty())?;
    let q = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    let q = q.map_or(Some(1.0), |q| q.trim().parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)));
    Some((range, q.unwrap_or(0.0)))
}

fn matches(range: &str, form: Form) -> bool {
    range == "*/*" || range == "application/*" || range.eq_ignore_ascii_case(form.media_type())
}

/// Named with a quality of 0.
fn refused(form: Form, ranges: &[(&str, f32)]) -> bool {
    ranges.iter().any(|(range, q)| *q == 0.0 && range.eq_ignore_ascii_case(form.media_type()))
}

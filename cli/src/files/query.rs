//! Queries that read exactly the records of a list.

use tidelog_core::files::OffsetRange;

use super::Source;

/// A `SELECT`. Paths are patterns to DuckDB, and what is a pattern's own sign stands in brackets.
pub(super) fn duckdb(sources: &[Source]) -> String {
    const NOTHING: &str = "\
SELECT NULL::VARCHAR AS topic, NULL::INTEGER AS partition, NULL::BIGINT AS \"offset\", NULL::TIMESTAMPTZ AS timestamp,
  NULL::TIMESTAMPTZ AS append_time, NULL::INTEGER AS timestamp_type, NULL::BLOB AS key, NULL::BLOB AS value,
  NULL::STRUCT(key VARCHAR, value BLOB)[] AS headers
WHERE false
";
    let path = |source: &Source| {
        let mut text = String::from("'");
        for sign in source.path.chars() {
            match sign {
                '\'' => text.push_str("''"),
                '*' | '?' | '[' => text.extend(['[', sign, ']']),
                _ => text.push(sign),
            }
        }
        text + "'"
    };
    let select = |paths: &str| format!("SELECT * FROM read_parquet({paths}, hive_partitioning = false)");
    let mut parts = Vec::new();
    let whole: Vec<String> = whole(sources).map(path).collect();
    if !whole.is_empty() {
        parts.push(select(&format!("[\n  {}\n]", whole.join(",\n  "))));
    }
    let bounds = |range: &OffsetRange| {
        let OffsetRange { partition, base, end } = range;
        format!("(partition = {partition} AND \"offset\" >= {base} AND \"offset\" < {end})")
    };
    for source in straddling(sources) {
        let bounds: Vec<String> = source.ranges.iter().map(bounds).collect();
        parts.push(format!("{}\nWHERE {}", select(&path(source)), bounds.join("\n  OR ")));
    }
    if parts.is_empty() { NOTHING.to_owned() } else { parts.join("\nUNION ALL\n") + "\n" }
}

/// Python that makes a LazyFrame.
pub(super) fn polars(sources: &[Source]) -> String {
    const NOTHING: &str = "\
import polars as pl

times = pl.Datetime(\"us\", \"UTC\")
headers = pl.List(pl.Struct({\"key\": pl.String, \"value\": pl.Binary}))
frame = pl.LazyFrame(schema={
    \"topic\": pl.String, \"partition\": pl.Int32, \"offset\": pl.Int64, \"timestamp\": times, \"append_time\": times,
    \"timestamp_type\": pl.Int32, \"key\": pl.Binary, \"value\": pl.Binary, \"headers\": headers,
})
";
    let scan = |paths: &str| format!("    pl.scan_parquet({paths}, glob=False, hive_partitioning=False)");
    let bounds = |range: &OffsetRange| {
        let OffsetRange { partition, base, end } = range;
        format!(
            "(pl.col(\"partition\") == {partition}) & pl.col(\"offset\").is_between({base}, {end}, closed=\"left\")"
        )
    };
    let mut parts = Vec::new();
    let whole: Vec<String> = whole(sources).map(|source| python(&source.path)).collect();
    if !whole.is_empty() {
        parts.push(scan(&format!("[\n        {},\n    ]", whole.join(",\n        "))));
    }
    for source in straddling(sources) {
        let bounds: Vec<String> =
            source.ranges.iter().map(bounds).map(|bounds| format!("({bounds})")).collect();
        parts.push(format!(
            "{}.filter(\n        {}\n    )",
            scan(&python(&source.path)),
            bounds.join("\n        | ")
        ));
    }
    match parts.is_empty() {
        true => NOTHING.to_owned(),
        false => format!("import polars as pl\n\nframe = pl.concat([\n{},\n])\n", parts.join(",\n")),
    }
}

/// Python that makes a DataFrame. Paths are patterns to Spark; open-source Spark knows S3 as `s3a`.
pub(super) fn spark(sources: &[Source]) -> String {
    const NOTHING: &str = "\
frame = spark.createDataFrame([], \"topic string, partition int, offset bigint, timestamp timestamp, append_time timestamp, \"
    \"timestamp_type int, key binary, value binary, headers array<struct<key: string, value: binary>>\")
";
    let path = |source: &Source| {
        let mut text = String::new();
        for sign in source.path.chars() {
            if "*?[]{}\\".contains(sign) {
                text.push('\\');
            }
            text.push(sign);
        }
        python(&text.strip_prefix("s3://").map_or_else(|| text.clone(), |rest| format!("s3a://{rest}")))
    };
    let bounds = |range: &OffsetRange| {
        let OffsetRange { partition, base, end } = range;
        format!("(`partition` = {partition} AND `offset` >= {base} AND `offset` < {end})")
    };
    let mut parts = Vec::new();
    let whole: Vec<String> = whole(sources).map(path).collect();
    if !whole.is_empty() {
        parts.push(format!("spark.read.parquet(\n    {},\n)", whole.join(",\n    ")));
    }
    for source in straddling(sources) {
        let bounds: Vec<String> = source.ranges.iter().map(bounds).collect();
        let bounds = bounds.join(" OR ");
        parts.push(format!("spark.read.parquet({}).where(\n    \"{bounds}\"\n)", path(source)));
    }
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else { return NOTHING.to_owned() };
    let rest: String = parts.map(|part| format!(".unionByName({part})")).collect();
    format!("frame = {first}{rest}\n")
}

fn whole(sources: &[Source]) -> impl Iterator<Item = &Source> {
    sources.iter().filter(|source| !source.straddles)
}

fn straddling(sources: &[Source]) -> impl Iterator<Item = &Source> {
    sources.iter().filter(|source| source.straddles)
}

/// A string of Python: JSON's are.
fn python(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, straddles: bool) -> Source {
        let ranges = vec![OffsetRange { partition: 3, base: 5, end: 9 }];
        Source { path: path.to_owned(), bytes: 1, straddles, ranges }
    }

    #[test]
    fn hostile_paths_are_no_patterns_and_end_no_strings() {
        let sources = [source("/a'b[1]*?/\"\\.parquet", false), source("s3://b/c", true)];
        let sql = duckdb(&sources);
        assert!(sql.contains("'/a''b[[]1][*][?]/\"\\.parquet'"), "{sql}");
        assert!(sql.contains("\nUNION ALL\nSELECT * FROM read_parquet('s3://b/c', hive_partitioning = false)\nWHERE (partition = 3 AND"), "{sql}");
        let python = polars(&sources);
        assert!(python.contains(r#""/a'b[1]*?/\"\\.parquet""#), "{python}");
        let python = spark(&sources);
        assert!(python.contains(r#""/a'b\\[1\\]\\*\\?/\"\\\\.parquet""#), "{python}");
        assert!(python.contains(r#""s3a://b/c""#), "{python}");
    }
}

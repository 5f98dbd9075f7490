//! A table for Athena and Glue, with partitions projected from the names of folders: nothing has to be told of new ones.

use tidelog_core::files::FileList;

use crate::out::Failure;
use crate::time::show_ms;

pub(super) fn table(list: &FileList, place: &str) -> Result<String, Failure> {
    if !place.starts_with("s3://") {
        return Err(Failure::Failed(format!("Athena reads S3, and this store is {place}")));
    }
    if place.contains(['\'', '$']) {
        return Err(Failure::Failed(format!("{place} has a sign that a table's location cannot have")));
    }
    let (topic, id) = (&list.topic, list.id);
    // What Athena takes in a name.
    let name: String = topic
        .chars()
        .map(|sign| if sign.is_ascii_alphanumeric() { sign.to_ascii_lowercase() } else { '_' })
        .collect();
    let first_day = show_ms(list.created_ms);
    let first_day = first_day.get(..10).unwrap_or("1970-01-01");
    let location = format!("{place}topics/{topic}/{id}");
    Ok(format!(
        "\
-- What upkeep merged of the topic {topic}, over all files there are: also those that were not committed, and for an hour or two
-- those that larger ones replaced or that were trimmed. Keep one row for each (`partition`, `offset`): such rows are equal.
CREATE EXTERNAL TABLE `{name}` (
  `topic` string,
  `partition` int,
  `offset` bigint,
  `timestamp` timestamp,
  `append_time` timestamp,
  `timestamp_type` int,
  `key` binary,
  `value` binary,
  `headers` array<struct<key: string, value: binary>>
)
PARTITIONED BY (`date` string, `hour` int)
STORED AS PARQUET
LOCATION '{location}/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.date.type' = 'date',
  'projection.date.format' = 'yyyy-MM-dd',
  'projection.date.range' = '{first_day},NOW+1DAYS',
  'projection.date.interval' = '1',
  'projection.date.interval.unit' = 'DAYS',
  'projection.hour.type' = 'integer',
  'projection.hour.range' = '0,23',
  'projection.hour.digits' = '2',
  'storage.location.template' = '{location}/date=${{date}}/hour=${{hour}}/'
)
"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `infra/README.md` shows it.
    #[test]
    fn the_page_on_infra_has_it() {
        let list = FileList {
            topic: "app".to_owned(),
            id: tidelog_core::record::TopicId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            created_ms: 1_767_225_600_000,
            bounds: Vec::new(),
            files: Vec::new(),
            rest: Vec::new(),
        };
        let page = include_str!("../../../infra/README.md");
        let ddl = table(&list, "s3://BUCKET/PREFIX/").unwrap();
        assert!(page.contains(&format!("```sql\n{ddl}```\n")), "{ddl}");
    }

    #[test]
    fn the_folders_of_an_hour_are_partitions() {
        let list = FileList {
            topic: "App.logs-1".to_owned(),
            id: tidelog_core::record::TopicId(7),
            created_ms: 1_790_000_000_000,
            bounds: Vec::new(),
            files: Vec::new(),
            rest: Vec::new(),
        };
        let ddl = table(&list, "s3://bucket/prefix/").unwrap();
        let folder = format!("s3://bucket/prefix/topics/App.logs-1/{}", list.id);
        for line in [
            "CREATE EXTERNAL TABLE `app_logs_1` (".to_owned(),
            format!("LOCATION '{folder}/'"),
            "  'projection.date.range' = '2026-09-21,NOW+1DAYS',".to_owned(),
            format!("  'storage.location.template' = '{folder}/date=${{date}}/hour=${{hour}}/'"),
        ] {
            assert!(ddl.lines().any(|found| found == line), "{line} in {ddl}");
        }
        assert!(table(&list, "/a/folder/").is_err());
        assert!(table(&list, "s3://bucket/it's/").is_err());
    }
}

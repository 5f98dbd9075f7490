//! The columns of a merged segment. Names, types, order and field ids are for ever: only types that Athena, Spark and
//! Iceberg v2 all read.
//!
//! ```text
//! id  column             Parquet                              encoding             statistics
//!  1  topic              required BYTE_ARRAY (STRING)         dictionary           a page
//!  2  partition          required INT32                       dictionary           a page
//!  3  offset             required INT64                       delta                a page
//!  4  timestamp          required INT64 (TIMESTAMP µs, UTC)   delta or dictionary  a page
//!  5  append_time        required INT64 (TIMESTAMP µs, UTC)   dictionary           a page
//!  6  timestamp_type     required INT32                       dictionary           a page    0 CreateTime, 1 LogAppendTime
//!  7  key                optional BYTE_ARRAY                  dictionary or plain  a page
//!  8  value              optional BYTE_ARRAY                  plain                none
//!  9  headers            required group (LIST)
//! 10    list.element     required group
//! 11      key            required BYTE_ARRAY (STRING)         dictionary or plain  none
//! 12      value          optional BYTE_ARRAY                  dictionary or plain  none
//! ```
//! Each column has an offset index, and all with statistics a column index. Encodings of pages are told for the key alone.
//! `created_by` is `tidelog merged version 1`: the format's version, not the program's.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use parquet::arrow::{ArrowSchemaConverter, PARQUET_FIELD_ID_META_KEY};
use parquet::basic::Encoding;
use parquet::file::properties::{
    BloomFilterPosition, DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT, EnabledStatistics, WriterProperties,
};
use parquet::schema::types::{ColumnPath, SchemaDescPtr};

use crate::limits;
use crate::segment::{Compression, schema};

/// Version of the format that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// `created_by`, without the version.
pub(super) const CREATED_BY: &str = "tidelog merged version ";

/// Columns by their place; the leaf of each is at the same place, the first of the headers' two, too.
pub(super) const TOPIC: usize = 0;
pub(super) const PARTITION: usize = 1;
pub(super) const OFFSET: usize = 2;
pub(super) const TIMESTAMP: usize = 3;
pub(super) const APPEND_TIME: usize = 4;
pub(super) const TIMESTAMP_TYPE: usize = 5;
pub(super) const KEY: usize = 6;
pub(super) const VALUE: usize = 7;
pub(super) const HEADERS: usize = 8;

fn field(id: u32, name: &str, data_type: DataType, nullable: bool) -> Field {
    let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
    Field::new(name, data_type, nullable).with_metadata(id)
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

static HEADER_FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        field(11, "key", DataType::Utf8, false),
        field(12, "value", DataType::BinaryView, true),
    ])
});

static HEADER_ELEMENT: LazyLock<FieldRef> =
    LazyLock::new(|| Arc::new(field(10, "element", DataType::Struct(HEADER_FIELDS.clone()), false)));

static ARROW: LazyLock<SchemaRef> = LazyLock::new(|| {
    let topic = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(Schema::new(vec![
        field(1, "topic", topic, false),
        field(2, "partition", DataType::Int32, false),
        field(3, "offset", DataType::Int64, false),
        field(4, "timestamp", time(), false),
        field(5, "append_time", time(), false),
        field(6, "timestamp_type", DataType::Int32, false),
        field(7, "key", DataType::BinaryView, true),
        field(8, "value", DataType::BinaryView, true),
        field(9, "headers", DataType::List(HEADER_ELEMENT.clone()), false),
    ]))
});

static PARQUET: LazyLock<SchemaDescPtr> =
    // A constant conversion, run by every test of this module.
    LazyLock::new(|| Arc::new(ArrowSchemaConverter::new().convert(&ARROW).expect("the schema converts")));

/// The schema in Arrow's types.
pub fn arrow() -> SchemaRef {
    ARROW.clone()
}

/// The schema in Parquet's types.
pub fn parquet() -> &'static SchemaDescPtr {
    &PARQUET
}

pub(super) fn header_fields() -> Fields {
    HEADER_FIELDS.clone()
}

pub(super) fn header_element() -> FieldRef {
    HEADER_ELEMENT.clone()
}

/// How a merged segment is written. The benchmark gives the same to the bare Parquet writer. Where `times_repeat` they have
/// a small dictionary, and engines compute once for each entry what they would for each row; DuckDB, only where they are one page.
pub fn writer_properties(compression: Compression, bloom: bool, times_repeat: bool) -> WriterProperties {
    let column = ColumnPath::from;
    let page_rows = if times_repeat { limits::MERGED_GROUP_ROWS } else { DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT };
    WriterProperties::builder()
        .set_created_by(format!("{CREATED_BY}{FORMAT_VERSION}"))
        .set_compression(schema::codec(compression))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_index_truncate_length(Some(64))
        .set_statistics_truncate_length(Some(64))
        // The writer cuts row groups itself.
        .set_max_row_group_row_count(None)
        .set_column_dictionary_enabled(column("offset"), false)
        .set_column_encoding(column("offset"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column("timestamp"), times_repeat)
        .set_column_dictionary_page_size_limit(column("timestamp"), limits::MERGED_TIMES_BYTES)
        .set_column_data_page_row_count_limit(column("timestamp"), page_rows)
        // What does not fit into the dictionary, too.
        .set_column_encoding(column("timestamp"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column("value"), false)
        .set_column_statistics_enabled(column("value"), EnabledStatistics::None)
        .set_column_statistics_enabled(header("key"), EnabledStatistics::None)
        .set_column_statistics_enabled(header("value"), EnabledStatistics::None)
        // Behind the row groups, which lie end to end.
        .set_bloom_filter_position(BloomFilterPosition::End)
        .set_column_bloom_filter_enabled(column("key"), bloom)
        .build()
}

fn header(leaf: &str) -> ColumnPath {
    ColumnPath::new(["headers", "list", "element", leaf].map(str::to_owned).to_vec())
}

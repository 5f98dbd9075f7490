//! The columns of an L0 segment, and how each is encoded. Names, types and order are for ever.
//!
//! ```text
//! column             Parquet                              encoding      statistics (a row group)
//! topic              required BYTE_ARRAY (STRING)         dictionary    min, max
//! partition          required INT32                       dictionary    min, max
//! timestamp          required INT64 (TIMESTAMP µs, UTC)   plain         min, max
//! key                optional BYTE_ARRAY                  plain         none
//! value              optional BYTE_ARRAY                  plain         none
//! headers            required group (LIST)
//!   list             repeated group
//!     element        required group
//!       key          required BYTE_ARRAY (STRING)         plain         none
//!       value        optional BYTE_ARRAY                  plain         none
//! ```
//! The codec is the topic's, except that topic and partition, and keys or headers where a row group has none, have no
//! codec (see `runs`).
//! Data pages are version 1. No page index, no bloom filters, no key-value metadata. `created_by` is
//! `tidelog version 1`: the format's version, not the program's.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ListArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::ZstdLevel;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::schema::types::{ColumnPath, SchemaDescPtr};

use super::Compression;
use crate::limits;

/// First and last bytes of a Parquet file.
pub(crate) const MAGIC: &[u8; 4] = b"PAR1";
/// Version of the format that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// `created_by`, without the version.
pub(super) const CREATED_BY: &str = "tidelog version ";

/// Leaf columns by their place in a row group. Those of the columns are the same, with `headers` at `HEADER_KEY`.
pub(super) const TOPIC: usize = 0;
pub(super) const PARTITION: usize = 1;
pub(super) const TIMESTAMP: usize = 2;
pub(super) const KEY: usize = 3;
pub(super) const HEADER_KEY: usize = 5;
pub(super) const HEADER_VALUE: usize = 6;
pub(super) const LEAVES: usize = 7;

static HEADER_FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::BinaryView, true),
    ])
});

static HEADER_ELEMENT: LazyLock<FieldRef> =
    LazyLock::new(|| Arc::new(Field::new("element", DataType::Struct(header_fields()), false)));

static ARROW: LazyLock<SchemaRef> = LazyLock::new(|| {
    let topic = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("topic", topic, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("timestamp", timestamp, false),
        Field::new("key", DataType::BinaryView, true),
        Field::new("value", DataType::BinaryView, true),
        Field::new("headers", DataType::List(header_element()), false),
    ]))
});

static PARQUET: LazyLock<SchemaDescPtr> =
    // A constant conversion, run by every test of this module.
    LazyLock::new(|| Arc::new(ArrowSchemaConverter::new().convert(&ARROW).expect("the schema converts")));

/// Fields of one header.
pub(crate) fn header_fields() -> Fields {
    HEADER_FIELDS.clone()
}

/// Element of the `headers` list.
pub(crate) fn header_element() -> FieldRef {
    HEADER_ELEMENT.clone()
}

/// The structs in a `headers` column, if it is one.
pub(crate) fn header_struct(list: &ListArray) -> Option<&StructArray> {
    let structs = list.values().as_any().downcast_ref::<StructArray>()?;
    (structs.fields() == &*HEADER_FIELDS).then_some(structs)
}

/// The schema in Arrow's types: dictionary for topics, views for bytes. In the file they are strings and bytes.
pub fn arrow() -> SchemaRef {
    ARROW.clone()
}

/// The schema in Parquet's types.
pub fn parquet() -> &'static SchemaDescPtr {
    &PARQUET
}

static PROPERTIES: LazyLock<[WriterPropertiesPtr; Compression::ALL.len()]> =
    LazyLock::new(|| Compression::ALL.map(|compression| Arc::new(make_properties(compression))));

/// How a segment is written. The benchmark gives the same to the bare Parquet writer.
pub fn writer_properties(compression: Compression) -> WriterPropertiesPtr {
    // `ALL` is in the order of the variants.
    PROPERTIES[compression as usize].clone()
}

/// What [`Compression::Zstd`] means.
pub(super) const ZSTD_LEVEL: i32 = 1;

/// The codec in Parquet's words.
pub fn codec(compression: Compression) -> parquet::basic::Compression {
    match compression {
        Compression::None => parquet::basic::Compression::UNCOMPRESSED,
        Compression::Lz4 => parquet::basic::Compression::LZ4_RAW,
        Compression::Snappy => parquet::basic::Compression::SNAPPY,
        // The level is valid: `try_new` accepts 1 to 22.
        Compression::Zstd => {
            parquet::basic::Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default())
        }
    }
}

fn make_properties(compression: Compression) -> WriterProperties {
    let path = |leaf: usize| -> ColumnPath { PARQUET.column(leaf).path().clone() };
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("{CREATED_BY}{FORMAT_VERSION}"))
        .set_compression(codec(compression))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        // The writer allocates for each of these; pages are bounded in bytes all the same.
        .set_write_batch_size(16 << 10)
        // Without a page index, small pages serve nobody; each costs buffers and a header.
        .set_data_page_size_limit(2 << 20)
        .set_data_page_row_count_limit(limits::SEGMENT_ROWS_MAX)
        // The writer cuts row groups itself.
        .set_max_row_group_row_count(None);
    for leaf in [TOPIC, PARTITION] {
        properties = properties
            .set_column_dictionary_enabled(path(leaf), true)
            // A handful of bytes: a codec and its tables cost far more than they could save.
            .set_column_compression(path(leaf), parquet::basic::Compression::UNCOMPRESSED);
    }
    for leaf in [TOPIC, PARTITION, TIMESTAMP] {
        properties = properties.set_column_statistics_enabled(path(leaf), EnabledStatistics::Chunk);
    }
    properties.build()
}

//! Parquet, by the generic writer: statistics and page index as it makes them, a row group at a time in memory.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::builder::{
    BinaryBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, StringDictionaryBuilder,
    StructBuilder, TimestampMicrosecondBuilder,
};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use tidelog_core::Message;
use tidelog_core::segment::{Compression, schema};

use super::Rows;

/// Rows of a row group: what DuckDB's own files have.
const GROUP_ROWS: usize = 122_880;
/// Bytes of keys, values and headers at which a row group ends, too, so that memory is bounded.
const GROUP_BYTES: usize = 32 << 20;
/// Rows handed to the writer at once.
const BATCH_ROWS: usize = 8_192;
const BATCH_BYTES: usize = 4 << 20;

pub(super) struct Columns<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: SchemaRef,
    topic: String,
    topics: StringDictionaryBuilder<Int32Type>,
    partitions: Int32Builder,
    offsets: Int64Builder,
    timestamps: TimestampMicrosecondBuilder,
    keys: BinaryBuilder,
    values: BinaryBuilder,
    headers: ListBuilder<StructBuilder>,
    /// Of the batch, and of the row group.
    rows: (usize, usize),
    bytes: (usize, usize),
}

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)])
}

fn header_element() -> Field {
    Field::new("element", DataType::Struct(header_fields()), false)
}

fn columns() -> SchemaRef {
    let topic = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("topic", topic, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", timestamp, false),
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
        Field::new("headers", DataType::List(Arc::new(header_element())), false),
    ]))
}

impl<W: Write + Send> Columns<W> {
    pub(super) fn new(out: W, topic: &str, compression: Compression) -> io::Result<Self> {
        let schema = columns();
        let properties = WriterProperties::builder()
            .set_compression(schema::codec(compression))
            // Values seldom come twice; a dictionary of them is made in vain.
            .set_column_dictionary_enabled(ColumnPath::from("value"), false)
            .set_max_row_group_row_count(None)
            .build();
        let fields = header_fields();
        let builders: Vec<Box<dyn arrow::array::ArrayBuilder>> =
            vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())];
        Ok(Self {
            writer: ArrowWriter::try_new(out, schema.clone(), Some(properties))?,
            schema,
            topic: topic.to_owned(),
            topics: StringDictionaryBuilder::new(),
            partitions: Int32Builder::new(),
            offsets: Int64Builder::new(),
            timestamps: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            keys: BinaryBuilder::new(),
            values: BinaryBuilder::new(),
            headers: ListBuilder::new(StructBuilder::new(fields, builders)).with_field(header_element()),
            rows: (0, 0),
            bytes: (0, 0),
        })
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.topics.finish()),
            Arc::new(self.partitions.finish()),
            Arc::new(self.offsets.finish()),
            Arc::new(self.timestamps.finish()),
            Arc::new(self.keys.finish()),
            Arc::new(self.values.finish()),
            Arc::new(self.headers.finish()),
        ];
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(io::Error::other)?;
        self.writer.write(&batch)?;
        (self.rows.1, self.bytes.1) = (self.rows.1 + self.rows.0, self.bytes.1 + self.bytes.0);
        (self.rows.0, self.bytes.0) = (0, 0);
        if self.rows.1 >= GROUP_ROWS || self.bytes.1 >= GROUP_BYTES {
            self.writer.flush()?;
            (self.rows.1, self.bytes.1) = (0, 0);
        }
        Ok(())
    }
}

impl<W: Write + Send> Rows for Columns<W> {
    fn write(&mut self, message: &Message) -> io::Result<()> {
        let record = &message.record;
        self.topics.append(&self.topic).map_err(io::Error::other)?;
        // Both fit: the log has no partition above i32::MAX, and no offset above i64::MAX.
        self.partitions.append_value(message.partition as i32);
        self.offsets.append_value(record.offset as i64);
        self.timestamps.append_value(record.timestamp_us);
        self.keys.append_option(record.key.as_deref());
        self.values.append_option(record.value.as_deref());
        let headers = self.headers.values();
        for header in &record.headers {
            // The builders that `new` made.
            if let Some(keys) = headers.field_builder::<StringBuilder>(0) {
                keys.append_value(&header.key);
            }
            if let Some(values) = headers.field_builder::<BinaryBuilder>(1) {
                values.append_option(header.value.as_deref());
            }
            headers.append(true);
        }
        self.headers.append(true);
        let size = |bytes: Option<&bytes::Bytes>| bytes.map_or(0, bytes::Bytes::len);
        let headers: usize = record.headers.iter().map(|h| h.key.len() + size(h.value.as_ref())).sum();
        self.rows.0 += 1;
        self.bytes.0 += size(record.key.as_ref()) + size(record.value.as_ref()) + headers;
        // So that both bounds are met to the row.
        let is_full = self.rows.1 + self.rows.0 >= GROUP_ROWS || self.bytes.1 + self.bytes.0 >= GROUP_BYTES;
        if is_full || self.rows.0 >= BATCH_ROWS || self.bytes.0 >= BATCH_BYTES {
            self.hand_over()?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        if self.rows.0 > 0 {
            self.hand_over()?;
        }
        self.writer.finish()?;
        self.writer.inner_mut().flush()
    }
}

//! Records as Arrow and Parquet.
//!
//! ```text
//! partition   int32                        offset   int64
//! timestamp   timestamp[µs, UTC]           key, value   binary, nullable
//! headers     list<struct<key: utf8, value: binary (nullable)>>
//! ```

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, ListBuilder, RecordBatch, StringBuilder, StructBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tidelog_core::{ConsumerRecord, limits};
use tidelog_functions::Problem;

use crate::accept::Form;

/// As many of the records as fit into an answer, and how many those are.
pub fn write(form: Form, partition: u32, records: &[ConsumerRecord]) -> Result<(Vec<u8>, usize), Problem> {
    let mut take = records.len();
    loop {
        let body = encode(form, partition, &records[..take]).map_err(|error| {
            Problem::new(500, "cannot_encode", format!("the records cannot be written in this form: {error}"))
        })?;
        if body.len() <= limits::HTTP_ANSWER_BYTES_MAX {
            return Ok((body, take));
        }
        take /= 2;
        if take == 0 {
            return Ok((Vec::new(), 0));
        }
    }
}

fn encode(form: Form, partition: u32, records: &[ConsumerRecord]) -> parquet::errors::Result<Vec<u8>> {
    let batch = batch(partition, records)?;
    let mut body = Vec::new();
    if form == Form::Arrow {
        let mut writer = StreamWriter::try_new(&mut body, &batch.schema())?;
        writer.write(&batch)?;
        writer.finish()?;
        drop(writer);
        return Ok(body);
    }
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1)?);
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let mut writer = ArrowWriter::try_new(&mut body, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(body)
}

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)])
}

fn batch(partition: u32, records: &[ConsumerRecord]) -> arrow::error::Result<RecordBatch> {
    let element = Field::new("element", DataType::Struct(header_fields()), false);
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Schema::new(vec![
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", utc, false),
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
        Field::new("headers", DataType::List(Arc::new(element.clone())), false),
    ]);
    let (mut keys, mut values) = (BinaryBuilder::new(), BinaryBuilder::new());
    let builders: Vec<Box<dyn arrow::array::ArrayBuilder>> =
        vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())];
    let mut headers = ListBuilder::new(StructBuilder::new(header_fields(), builders)).with_field(element);
    for record in records {
        keys.append_option(record.key.as_deref());
        values.append_option(record.value.as_deref());
        for header in &record.headers {
            let structs = headers.values();
            if let Some(key) = structs.field_builder::<StringBuilder>(0) {
                key.append_value(&header.key);
            }
            if let Some(value) = structs.field_builder::<BinaryBuilder>(1) {
                value.append_option(header.value.as_deref());
            }
            structs.append(true);
        }
        headers.append(true);
    }
    let times = records.iter().map(|record| record.timestamp_us);
    let columns: Vec<ArrayRef> = vec![
        // Both fit: offsets are below 2^63, partitions below 10,000.
        Arc::new(Int32Array::from_iter_values(records.iter().map(|_| partition as i32))),
        Arc::new(Int64Array::from_iter_values(records.iter().map(|record| record.offset as i64))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")),
        Arc::new(keys.finish()),
        Arc::new(values.finish()),
        Arc::new(headers.finish()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
}

//! Bare Parquet: the same schema, properties and row groups as a segment's, with nothing of the log around them.

use std::sync::Arc;

use arrow::array::builder::BinaryViewBuilder;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, DictionaryArray, Int32Array, ListArray, RecordBatch,
    StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Int32Type};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidelog_core::segment::{Compression, schema};

use crate::Fallible;

/// Topic of every row.
pub const TOPIC: &str = "lines";

/// Values and their timestamps as columns: what a program that has rows and wants Parquet must do first.
#[derive(Debug, Default)]
pub struct Columns {
    timestamps: Vec<i64>,
    keys: BinaryViewBuilder,
    values: BinaryViewBuilder,
}

impl Columns {
    /// Adds a row without a key.
    pub fn push(&mut self, timestamp_us: i64, value: &[u8]) {
        self.timestamps.push(timestamp_us);
        self.keys.append_null();
        self.values.append_value(value);
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// The rows as a batch of one partition.
    pub fn finish(mut self, partition: i32) -> Fallible<RecordBatch> {
        batch(partition, self.timestamps, self.keys.finish(), self.values.finish())
    }
}

/// Rows of one partition, without headers, as a batch of a segment's columns.
pub fn batch(
    partition: i32,
    timestamps_us: Vec<i64>,
    keys: BinaryViewArray,
    values: BinaryViewArray,
) -> Fallible<RecordBatch> {
    let DataType::List(element) = schema::arrow().field(5).data_type().clone() else {
        return Err("headers are a list".into());
    };
    let DataType::Struct(fields) = element.data_type().clone() else { return Err("of structs".into()) };
    let n = timestamps_us.len();
    let none = Arc::new(StructArray::new_null(fields, 0));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(DictionaryArray::<Int32Type>::try_new(
            Int32Array::from(vec![0; n]),
            Arc::new(StringArray::from(vec![TOPIC])),
        )?),
        Arc::new(Int32Array::from(vec![partition; n])),
        Arc::new(TimestampMicrosecondArray::from(timestamps_us).with_timezone("UTC")),
        Arc::new(keys),
        Arc::new(values),
        Arc::new(ListArray::new(element, OffsetBuffer::new_zeroed(n), none, None)),
    ];
    Ok(RecordBatch::try_new(schema::arrow(), columns)?)
}

/// A file of these row groups.
pub fn encode(groups: &[Vec<RecordBatch>], compression: Compression) -> Bytes {
    let properties = schema::writer_properties(compression).as_ref().clone();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema::arrow(), Some(properties)).expect("opens");
    for batches in groups {
        batches.iter().for_each(|b| writer.write(b).expect("writes"));
        writer.flush().expect("flushes");
    }
    Bytes::from(writer.into_inner().expect("closes"))
}

/// Every batch of a file, read by the default Arrow reader.
pub fn decode(file: &Bytes) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).expect("a Parquet file");
    let reader = reader.with_batch_size(8_192).build().expect("opens");
    reader.map(|batch| batch.expect("decodes")).collect()
}

/// Rows and bytes of the values of a batch, each value looked at.
pub fn look(batch: &RecordBatch) -> (u64, u64) {
    let values = batch.column_by_name("value").expect("a segment's columns").as_binary::<i32>();
    let bytes = values.iter().map(|value| value.map_or(0, |v| v.len() as u64)).sum();
    (values.len() as u64, bytes)
}

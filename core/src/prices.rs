//! What AWS charges: the one file with list prices.
//!
//! On demand, us-east-1, dollars, without free tier or discounts. Read from AWS's price lists (by way of infracost's copy
//! of them) in September 2026; whoever changes a price changes [`READ`].
//!
//! | what | dollars a million | source |
//! |---|---|---|
//! | S3 Standard PUT, COPY, LIST | 5.00 | aws.amazon.com/s3/pricing |
//! | S3 Standard GET, HEAD | 0.40 | the same; DELETE is free, and so is traffic within a region |
//! | DynamoDB on demand, write unit (1 KiB) | 0.625 | aws.amazon.com/dynamodb/pricing/on-demand |
//! | DynamoDB on demand, read unit (4 KiB, strong; eventual is half of one) | 0.125 | the same |
//!
//! Not in here: storage (S3 $0.023, DynamoDB $0.25 a GB and month), and the functions' own time.

use crate::counting::{ObjectCounts, TableCounts};

/// When the prices were read: year and month.
pub const READ: &str = "2026-09";
/// A million PUTs, copies or pages of a listing.
pub const S3_PUT: f64 = 5.0;
/// A million GETs or HEADs.
pub const S3_GET: f64 = 0.4;
/// A million write units of the table.
pub const WRITE_UNIT: f64 = 0.625;
/// A million read units of the table.
pub const READ_UNIT: f64 = 0.125;

/// What these requests to an object store cost, in dollars.
pub fn objects(counts: &ObjectCounts) -> f64 {
    let (put, get) = (counts.puts + counts.copies + counts.lists, counts.gets + counts.heads);
    (put as f64 * S3_PUT + get as f64 * S3_GET) / 1e6
}

/// What these units of the table cost, in dollars.
pub fn table(counts: &TableCounts) -> f64 {
    (counts.write_units as f64 * WRITE_UNIT + counts.read_half_units as f64 / 2.0 * READ_UNIT) / 1e6
}

/// Both together.
pub fn dollars(of_objects: &ObjectCounts, of_table: &TableCounts) -> f64 {
    objects(of_objects) + table(of_table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_batch_costs_less_than_a_put() {
        let put = ObjectCounts { puts: 1_000_000, deletes: 5, ..ObjectCounts::default() };
        let small =
            TableCounts { write_units: 1_000_000, read_half_units: 2_000_000, ..TableCounts::default() };
        assert_eq!((objects(&put), table(&small), dollars(&put, &small)), (5.0, 0.75, 5.75));
    }
}

//! Verify: reads everything that the ledger names and checks every sum. Reports instead of stopping at the first damage,
//! so it works on the store and not on an opened log. Nothing here writes.

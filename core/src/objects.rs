//! stub
use crate::ledger::action::CheckpointName;
use bytes::Bytes;
/// o
#[derive(Debug, Clone)]
pub struct Objects;
/// n
#[derive(Debug, Clone)]
pub struct ObjectName(String);
impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl ObjectName {
    /// c
    pub fn checkpoint(_: &CheckpointName) -> Self {
        Self(String::new())
    }
}
impl Objects {
    /// g
    pub async fn get(&self, _: &ObjectName) -> crate::Result<Option<Bytes>> {
        Ok(None)
    }
    /// p
    pub async fn put_new(&self, _: &ObjectName, _: Bytes) -> crate::Result<()> {
        Ok(())
    }
}

impl ObjectName {
    /// s
    pub fn segment(_: &crate::ledger::action::ObjectRef) -> Self {
        Self(String::new())
    }
}
/// u
pub fn new_ulid(env: &dyn crate::env::Env) -> u128 {
    crate::env::random_u128(env)
}

//! Making the table, as `infra/table.json` says: the one schema, which infra's template takes, too.

use std::time::Duration;

use serde::Deserialize;

use super::sdk::error::ProvideErrorMetadata;
use super::sdk::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, PointInTimeRecoverySpecification,
    PointInTimeRecoveryStatus, StreamSpecification, TableDescription, TableStatus,
};
use super::{DynamoTable, Failure};
use crate::limits::{TABLE_CREATE_MS_MAX, TABLE_CREATE_POLL_MS};
use crate::table::TableError;
use crate::{Error, Result};

const SCHEMA: &str = include_str!("../../../../infra/table.json");

/// The table, in CloudFormation's words.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Schema {
    attribute_definitions: Vec<Attribute>,
    key_schema: Vec<Key>,
    billing_mode: String,
    stream_specification: Stream,
    point_in_time_recovery_specification: Recovery,
    deletion_protection_enabled: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Attribute {
    attribute_name: String,
    attribute_type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Key {
    attribute_name: String,
    key_type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Stream {
    stream_view_type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Recovery {
    point_in_time_recovery_enabled: bool,
}

impl Schema {
    fn read() -> Result<Self> {
        serde_json::from_str(SCHEMA)
            .map_err(|error| Error::CannotOpen { url: "infra/table.json".into(), reason: error.to_string() })
    }

    fn attributes(&self) -> Result<Vec<AttributeDefinition>> {
        let make = |attribute: &Attribute| {
            AttributeDefinition::builder()
                .attribute_name(&attribute.attribute_name)
                .attribute_type(attribute.attribute_type.as_str().into())
                .build()
        };
        self.attribute_definitions.iter().map(|attribute| make(attribute).map_err(built)).collect()
    }

    fn keys(&self) -> Result<Vec<KeySchemaElement>> {
        let make = |key: &Key| {
            let key_type = key.key_type.as_str().into();
            KeySchemaElement::builder().attribute_name(&key.attribute_name).key_type(key_type).build()
        };
        self.key_schema.iter().map(|key| make(key).map_err(built)).collect()
    }

    fn stream(&self) -> Result<StreamSpecification> {
        let view = self.stream_specification.stream_view_type.as_str().into();
        StreamSpecification::builder().stream_enabled(true).stream_view_type(view).build().map_err(built)
    }

    /// Whether a table that is there has these keys. Attributes of further indexes are its owner's business.
    fn fits(&self, there: &TableDescription) -> Result<bool> {
        let definitions = there.attribute_definitions();
        Ok(there.key_schema() == self.keys()?
            && self.attributes()?.iter().all(|attribute| definitions.contains(attribute)))
    }

    /// What the table should have and has not, by name.
    fn lacks(&self, there: &TableDescription) -> Vec<&'static str> {
        let mut lacks = Vec::new();
        let stream = there.stream_specification();
        let view = stream.and_then(|stream| stream.stream_view_type()).map(|view| view.as_str());
        if view != Some(self.stream_specification.stream_view_type.as_str())
            || !stream.is_some_and(StreamSpecification::stream_enabled)
        {
            lacks.push("stream (NEW_IMAGE)");
        }
        if self.deletion_protection_enabled && there.deletion_protection_enabled() != Some(true) {
            lacks.push("deletion protection");
        }
        let mode = there.billing_mode_summary().and_then(|summary| summary.billing_mode());
        if mode != Some(&BillingMode::from(self.billing_mode.as_str())) {
            lacks.push("on-demand billing");
        }
        lacks
    }
}

fn built(error: super::sdk::error::BuildError) -> Error {
    Error::CannotOpen { url: "infra/table.json".into(), reason: error.to_string() }
}

impl DynamoTable {
    /// Makes the table unless it is there, and waits until it can be used. Answers with what it should have and has
    /// not, by name: emulators lack some of it, and a table that was there is not changed but for its backups.
    ///
    /// # Errors
    /// `CannotOpen`: no right, or a table of another schema is there. `Unavailable`: not ready in time.
    pub async fn create(&self) -> Result<Vec<&'static str>> {
        let schema = Schema::read()?;
        let request = self
            .client
            .create_table()
            .table_name(&self.name)
            .set_attribute_definitions(Some(schema.attributes()?))
            .set_key_schema(Some(schema.keys()?))
            .billing_mode(schema.billing_mode.as_str().into())
            .stream_specification(schema.stream()?)
            .deletion_protection_enabled(schema.deletion_protection_enabled);
        if let Err(error) = request.send().await
            && error.code() != Some("ResourceInUseException")
        {
            let error = self.judge(&error, true);
            // Perhaps it is being made all the same: then it is found below.
            if !matches!(error, TableError::NoAnswer(_)) {
                return Err(error.into_error("creating the table", &self.name));
            }
        }
        let there = self.wait_until_active().await?;
        if !schema.fits(&there)? {
            let reason = "it has another schema than pk (string) and sk (number): name another table";
            return Err(Error::CannotOpen { url: self.place.clone(), reason: reason.to_owned() });
        }
        let mut lacks = schema.lacks(&there);
        if schema.point_in_time_recovery_specification.point_in_time_recovery_enabled
            && !self.enable_recovery().await
        {
            lacks.push("point-in-time recovery");
        }
        Ok(lacks)
    }

    /// Asks until the table can be used.
    async fn wait_until_active(&self) -> Result<TableDescription> {
        let began = self.env.monotonic();
        loop {
            let cause = match self.client.describe_table().table_name(&self.name).send().await {
                Ok(found) => match found.table {
                    Some(table) if table.table_status() == Some(&TableStatus::Active) => return Ok(table),
                    table => format!("its status is {:?}", table.and_then(|table| table.table_status)),
                },
                Err(error) => match self.judge(&error, false) {
                    // A fresh table is not seen by everybody at once.
                    TableError::Refused(cause) if error.code() == Some("ResourceNotFoundException") => cause,
                    error @ TableError::Refused(_) => {
                        return Err(error.into_error("looking at the table", &self.name));
                    }
                    error => error.to_string(),
                },
            };
            if self.env.monotonic().saturating_sub(began) > Duration::from_millis(TABLE_CREATE_MS_MAX) {
                let cause = format!("not ready within {TABLE_CREATE_MS_MAX} ms: {cause}");
                return Err(Error::Unavailable { what: "creating the table", cause });
            }
            self.env.sleep(Duration::from_millis(TABLE_CREATE_POLL_MS)).await;
        }
    }

    /// Turns point-in-time recovery on. `false`: it could not be, and the event says why.
    async fn enable_recovery(&self) -> bool {
        let found = self.client.describe_continuous_backups().table_name(&self.name).send().await;
        if let Ok(found) = found
            && recovers(found.continuous_backups_description)
        {
            return true;
        }
        let began = self.env.monotonic();
        loop {
            match self.try_enable_recovery().await {
                Ok(enabled) => return enabled,
                Err(error) => {
                    let soon = error.code() == Some("ContinuousBackupsUnavailableException")
                        || !matches!(self.judge(&error, false), TableError::Refused(_));
                    let waited = self.env.monotonic().saturating_sub(began);
                    if !soon || waited > Duration::from_millis(TABLE_CREATE_MS_MAX) {
                        let error = self.judge(&error, true);
                        tracing::warn!(table = self.name, %error, "point-in-time recovery cannot be turned on");
                        return false;
                    }
                }
            }
            self.env.sleep(Duration::from_millis(TABLE_CREATE_POLL_MS)).await;
        }
    }

    async fn try_enable_recovery(
        &self,
    ) -> Result<bool, Failure<super::sdk::operation::update_continuous_backups::UpdateContinuousBackupsError>>
    {
        let on = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true).build()?;
        let request = self.client.update_continuous_backups().table_name(&self.name);
        let done = request.point_in_time_recovery_specification(on).send().await?;
        Ok(recovers(done.continuous_backups_description))
    }
}

fn recovers(found: Option<super::sdk::types::ContinuousBackupsDescription>) -> bool {
    let recovery = found.and_then(|found| found.point_in_time_recovery_description);
    let status = recovery.and_then(|recovery| recovery.point_in_time_recovery_status);
    status == Some(PointInTimeRecoveryStatus::Enabled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_the_one_that_the_adapter_writes() {
        let schema = Schema::read().unwrap();
        let keys: Vec<_> = schema.key_schema.iter().map(|key| key.attribute_name.as_str()).collect();
        assert_eq!(keys, ["pk", "sk"]);
        let types: Vec<_> = schema
            .attributes()
            .unwrap()
            .iter()
            .map(|attribute| attribute.attribute_type().as_str().to_owned())
            .collect();
        assert_eq!(types, ["S", "N"]);
        assert!(schema.deletion_protection_enabled && schema.stream().unwrap().stream_enabled());
        assert_eq!(schema.billing_mode, "PAY_PER_REQUEST");
    }
}

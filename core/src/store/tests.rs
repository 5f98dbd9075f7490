use std::path::PathBuf;

use async_trait::async_trait;

use super::*;
use crate::env::SystemEnv;
use crate::objects::ObjectName;
use crate::table::{Consistency, Item, Page, Put, SK_MAX, Table, TableResult};

fn url(text: &str) -> StoreUrl {
    text.parse().unwrap()
}

fn at(path: &Path) -> StoreUrl {
    StoreUrl { place: Place::Folder(path.to_owned()), era: 0 }
}

async fn open(path: &Path, create: bool) -> Result<Store> {
    Store::open(&at(path), SystemEnv::shared(), create).await
}

#[test]
fn urls() {
    let folder = |path: &str| Place::Folder(PathBuf::from(path));
    let s3 = |prefix: &str| S3Url {
        bucket: "bucket".to_owned(),
        prefix: prefix.to_owned(),
        table: "log".to_owned(),
        ..S3Url::default()
    };
    for (text, place, era) in [
        ("memory:", Place::Memory, 0),
        ("memory:?era=2", Place::Memory, 2),
        ("./tidelog-data", folder("./tidelog-data"), 0),
        ("/var/lib/log?era=65535", folder("/var/lib/log"), 65_535),
        ("file:data", folder("data"), 0),
        ("file:/data", folder("/data"), 0),
        ("file:///data?era=1", folder("/data"), 1),
        ("./a:b", folder("./a:b"), 0),
        ("s3://bucket?table=log", Place::S3(s3("")), 0),
        ("s3://bucket/?table=log&era=3", Place::S3(s3("")), 3),
        ("s3://bucket/a/b/?table=log", Place::S3(s3("a/b")), 0),
        (
            "s3://bucket/a?region=eu-central-1&profile=my own&table=log&endpoint=http://[::1]:9000",
            Place::S3(S3Url {
                region: Some("eu-central-1".to_owned()),
                profile: Some("my own".to_owned()),
                endpoint: Some("http://[::1]:9000".to_owned()),
                ..s3("a")
            }),
            0,
        ),
    ] {
        assert_eq!(url(text), StoreUrl { place, era }, "{text}");
        assert_eq!(url(&url(text).to_string()), url(text), "{text}");
    }
}

#[test]
fn urls_that_are_refused_say_why() {
    for (text, why) in [
        ("", "empty"),
        ("file:", "local path"),
        ("file://host/data", "local path"),
        ("gs://bucket/log", "not there yet"),
        ("dynamodb:table", "written `s3://"),
        ("s3a://bucket/log", "written `s3://"),
        ("s3:bucket", "it is not `s3://"),
        ("s3://bucket/log", "which table"),
        ("s3://bucket/log?table=", "table is \"\""),
        ("s3://bucket/log?table=a/b", "table is \"a/b\""),
        ("s3://bucket/log?table=log&table=log", "\"table\" is there twice"),
        ("s3://bucket/log?table=log&tabel=x", "\"tabel\" is unknown"),
        ("s3://bucket/log?table=log&", "\"\" is unknown"),
        ("s3://bucket/log?table=log&region=EU", "region is \"EU\""),
        ("s3://bucket/log?table=log&region=", "region is \"\""),
        ("s3://bucket/log?table=log&profile=", "profile is \"\""),
        ("s3://bucket/log?table=log&endpoint=localhost:1", "endpoint is \"localhost:1\""),
        ("s3://bucket/log?table=log&endpoint=http://", "endpoint is \"http://\""),
        ("s3://bucket/log?table=log&endpoint_s3=http://h/path", "endpoint_s3 is"),
        ("s3://bucket/log?table=log&era=x", "0 to 65535"),
        ("s3://Bucket/log?table=log", "bucket is \"Bucket\""),
        ("s3://ab?table=log", "bucket is \"ab\""),
        ("s3://a..b?table=log", "bucket is \"a..b\""),
        ("s3://127.0.0.1?table=log", "bucket is"),
        ("s3://-ab?table=log", "bucket is"),
        ("s3://bucket//log?table=log", "prefix is \"/log\""),
        ("s3://bucket/a/../b?table=log", "prefix is"),
        ("s3://bucket/a b?table=log", "prefix is"),
        ("s3://bucket/a%20b?table=log", "prefix is"),
        ("foo:bar", "unknown scheme"),
        ("memory:x", "no name"),
        ("data?era=", "0 to 65535"),
        ("data?era=65536", "0 to 65535"),
        ("data?era=-1", "0 to 65535"),
        ("data?erra=1", "only `era=N`"),
        ("data?era=1&x=2", "only `era=N`"),
        ("data?table=log", "only `era=N`"),
        ("data?era=1&era=1", "there twice"),
        ("data?", "\"\" is unknown"),
    ] {
        let error = text.parse::<StoreUrl>().unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_folder_is_made_once_and_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b");
    let error = open(&path, false).await.unwrap_err();
    assert!(error.to_string().contains("tidelog init") && !path.exists(), "{error}");
    let store = open(&path, true).await.unwrap();
    probe(&store.table, &store.objects, &*SystemEnv::shared()).await.unwrap();
    assert!(path.join(sqlite::FILE).exists());
    assert_eq!(open(&path, false).await.unwrap().table.name(), "local");
    assert_eq!(open(&path, true).await.unwrap().era(), 0);
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let error = open(folder.path(), false).await.unwrap_err();
    assert!(error.to_string().contains("tidelog init"), "{error}");
    fs::create_dir(folder.path().join("lost+found")).unwrap();
    fs::write(folder.path().join("photo.jpg"), b"x").unwrap();
    for create in [false, true] {
        let error = open(folder.path(), create).await.unwrap_err();
        assert!(error.to_string().contains("not a tidelog store"), "{error}");
    }
    assert!(!folder.path().join(sqlite::FILE).exists());
    let error = open(&folder.path().join("photo.jpg"), true).await.unwrap_err();
    assert!(error.to_string().contains("not a folder"), "{error}");
    fs::remove_file(folder.path().join("photo.jpg")).unwrap();
    open(folder.path(), true).await.unwrap();
}

#[tokio::test]
async fn the_probe_leaves_one_object_and_no_row() {
    use futures::TryStreamExt;
    let env = SystemEnv::shared();
    let store = Store::open(&url("memory:"), env.clone(), true).await.unwrap();
    probe(&store.table, &store.objects, &*env).await.unwrap();
    let left: Vec<_> = store.objects.store().list(None).try_collect().await.unwrap();
    assert_eq!(left.len(), 1);
    let name: ObjectName = left[0].location.as_ref().parse().unwrap();
    let row = store.table.newest(&name.to_string(), SK_MAX, Consistency::Strong).await.unwrap();
    assert!(matches!(name, ObjectName::Probe { .. }) && row.value.is_none());
}

/// A table whose puts overwrite.
#[derive(Debug)]
struct Overwriting(MemoryTable);

#[async_trait]
impl Table for Overwriting {
    fn name(&self) -> &str {
        "overwriting"
    }
    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
        let mut answer = self.0.put_if_absent(pk, item).await?;
        if let Put::Exists(there) = &answer.value {
            self.0.replace_if(pk, item, there.id).await?;
            answer.value = Put::Stored;
        }
        Ok(answer)
    }
    async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.0.get(pk, sk, consistency).await
    }
    async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.0.newest(pk, to, consistency).await
    }
    async fn range(&self, pk: &str, from: u64, limit: usize, consistency: Consistency) -> TableResult<Page> {
        self.0.range(pk, from, limit, consistency).await
    }
    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
        self.0.replace_if(pk, item, expect).await
    }
    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
        self.0.delete_if(pk, sk, expect).await
    }
}

#[tokio::test]
async fn the_probe_refuses_a_table_that_overwrites() {
    let env = SystemEnv::shared();
    let table: SharedTable = Arc::new(Overwriting(MemoryTable::new()));
    let error = probe(&table, &Objects::memory(env.clone()), &*env).await.unwrap_err();
    assert!(matches!(&error, Error::StoreRefused { what } if what.contains("4 of 4")), "{error}");
}

//! Servers that stand in for AWS in tests: installed by `tests/emulators` into `.emu`, started here on free ports of this
//! machine, and gone with the process that started them, however it ends.
//!
//! | server | what it speaks | speed and state |
//! |---|---|---|
//! | [`dynamodb`] | DynamoDB: Amazon's own engine | up in 2–4 s; in memory, or a folder that survives a kill |
//! | [`seaweedfs`] | S3: a production server | up in 3–5 s; on disk |
//! | [`ministack`] | both: a second opinion | up in 0.3 s; in memory |
//! | [`localstack`] | all of AWS that tidelog uses | up in 5 s; in memory |
//!
//! Every server answers to any key; tests use [`KEY_ID`] and [`SECRET`].

mod process;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

pub use process::Server;

/// The access key that every server knows.
pub const KEY_ID: &str = "test";
/// Its secret.
pub const SECRET: &str = "test";
/// The region that every server plays.
pub const REGION: &str = "us-east-1";

/// Why a server is not there.
pub type Absent = String;

fn emu(name: &str) -> Result<PathBuf, Absent> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.emu");
    let folder = root.join(name);
    if !folder.join(".version").exists() {
        return Err(format!("{name} is not installed: run `tests/emulators {name}`"));
    }
    folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))
}

fn free_port() -> Result<u16, Absent> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.port())
}

/// A server on a free port. Between finding the port and taking it another process may have taken it: then again.
fn on_free_port(start: impl Fn(u16) -> Result<Server, Absent>) -> Result<Server, Absent> {
    let mut last = String::new();
    for _ in 0..3 {
        match start(free_port()?) {
            Ok(server) => return Ok(server),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// DynamoDB Local: in memory, or in the folder `data`, where what it answered survives a kill.
///
/// # Errors
/// It is not installed, or does not come up; with what it said.
pub fn dynamodb(data: Option<&Path>) -> Result<Server, Absent> {
    let folder = emu("dynamodb")?.join("lib");
    on_free_port(|port| {
        let mut args: Vec<String> =
            ["-Xmx512m", "-Djava.library.path=./DynamoDBLocal_lib", "-jar", "DynamoDBLocal.jar"]
                .map(str::to_owned)
                .to_vec();
        args.extend(["-port".to_owned(), port.to_string(), "-sharedDb".into(), "-disableTelemetry".into()]);
        match data {
            Some(data) => args.extend(["-dbPath".to_owned(), data.display().to_string()]),
            None => args.push("-inMemory".to_owned()),
        }
        Server::start("java", &args, &folder, &[], port)
    })
}

/// SeaweedFS's S3 server, on a folder of its own.
///
/// # Errors
/// It is not installed, or does not come up; with what it said.
pub fn seaweedfs() -> Result<Server, Absent> {
    let venv = emu("seaweedfs")?.join("venv");
    on_free_port(|port| {
        let data = tempfile::tempdir().map_err(|error| error.to_string())?;
        let config = data.path().join("s3.json");
        let identity = format!(
            r#"{{"identities": [{{"name": "test", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            "credentials": [{{"accessKey": "{KEY_ID}", "secretKey": "{SECRET}"}}]}}]}}"#
        );
        std::fs::write(&config, identity).map_err(|error| error.to_string())?;
        let mut args = vec![
            "server".to_owned(),
            format!("-dir={}", data.path().display()),
            "-ip=127.0.0.1".to_owned(),
            "-ip.bind=127.0.0.1".to_owned(),
            "-s3".to_owned(),
            format!("-s3.port={port}"),
            format!("-s3.config={}", config.display()),
            "-volume.max=50".to_owned(),
            // By default it takes no more writes at 1% free, which says little about a disk and nothing about tidelog.
            "-volume.minFreeSpace=256MiB".to_owned(),
            "-master.volumeSizeLimitMB=1024".to_owned(),
            "-master.telemetry=false".to_owned(),
        ];
        // Its parts talk to each other on ports of their own; the gRPC ones must not be "port + 10000" of another.
        for flag in ["master.port", "volume.port", "filer.port", "master.port.grpc", "volume.port.grpc"] {
            args.push(format!("-{flag}={}", free_port()?));
        }
        args.push(format!("-filer.port.grpc={}", free_port()?));
        args.push(format!("-s3.port.grpc={}", free_port()?));
        let program = venv.join("bin/weed");
        let server = Server::start(&program.display().to_string(), &args, data.path(), &[], port)?;
        Ok(server.owning(data))
    })
}

/// ministack: S3 and DynamoDB in one process.
///
/// # Errors
/// It is not installed, or does not come up; with what it said.
pub fn ministack() -> Result<Server, Absent> {
    let venv = emu("ministack")?.join("venv");
    on_free_port(|port| {
        let data = tempfile::tempdir().map_err(|error| error.to_string())?;
        let variables = [
            ("BIND_HOST", "127.0.0.1".to_owned()),
            ("MINISTACK_HOST", "localhost".to_owned()),
            ("GATEWAY_PORT", port.to_string()),
            ("TMPDIR", data.path().display().to_string()),
        ];
        let program = venv.join("bin/ministack").display().to_string();
        Ok(Server::start(&program, &[], data.path(), &variables, port)?.owning(data))
    })
}

/// LocalStack in host mode, with the services that tidelog uses.
///
/// # Errors
/// It is not installed, or does not come up; with what it said.
pub fn localstack() -> Result<Server, Absent> {
    let folder = emu("localstack")?;
    on_free_port(|port| {
        let data = tempfile::tempdir().map_err(|error| error.to_string())?;
        let services =
            "s3,dynamodb,dynamodbstreams,lambda,cloudformation,iam,sts,logs,events,sqs,ssm,cloudwatch";
        let variables = [
            ("TMPDIR", data.path().display().to_string()),
            ("FILESYSTEM_ROOT", folder.join("root").display().to_string()),
            // Where a /.dockerenv exists it would write to system folders.
            ("OVERRIDE_IN_DOCKER", "0".to_owned()),
            ("SERVICES", services.to_owned()),
            ("PROVIDER_OVERRIDE_DYNAMODB", "v2".to_owned()),
            ("DYNAMODB_IN_MEMORY", "1".to_owned()),
            ("DYNAMODB_SHARE_DB", "1".to_owned()),
            ("DYNAMODB_LOCAL_PORT", free_port()?.to_string()),
            ("GATEWAY_LISTEN", format!("127.0.0.1:{port}")),
            // Not an IP address: hosts of function URLs end with it.
            ("LOCALSTACK_HOST", format!("localhost:{port}")),
            ("DNS_ADDRESS", "0".to_owned()),
            ("DISABLE_EVENTS", "1".to_owned()),
            ("SKIP_SSL_CERT_DOWNLOAD", "1".to_owned()),
        ];
        let args = ["-m", "localstack.runtime.main"].map(str::to_owned);
        let program = folder.join("venv/bin/python").display().to_string();
        Ok(Server::start(&program, &args, data.path(), &variables, port)?.owning(data))
    })
}

//! Log lines: a file's, or made up.

use std::path::Path;

/// The lines of a file, or those that [`generated`] gives where there is none.
pub fn read(file: Option<&Path>) -> std::io::Result<Vec<Vec<u8>>> {
    let Some(file) = file else { return Ok(generated(50_000)) };
    let text = std::fs::read(file)?;
    let lines: Vec<_> = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect();
    if lines.is_empty() {
        return Err(std::io::Error::other(format!("{} has no lines", file.display())));
    }
    Ok(lines)
}

/// Lines like a web service's, about 140 bytes each, the same at every call.
pub fn generated(count: usize) -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let levels = ["INFO", "INFO", "INFO", "DEBUG", "WARN", "ERROR"];
    let verbs = ["GET", "GET", "POST", "PUT", "DELETE"];
    let paths = ["/v1/orders", "/v1/users", "/healthz", "/v2/search", "/assets/app.js", "/v1/carts/items"];
    let line = |i: usize| {
        format!(
            "2026-11-{:02}T{:02}:{:02}:{:02}.{:03}Z {} [worker-{}] http: {} {}/{} status={} bytes={} took={}us request={:016x}",
            1 + i / 40_000,
            i / 3_600 % 24,
            i / 60 % 60,
            i % 60,
            random(1_000),
            levels[random(6) as usize],
            random(16),
            verbs[random(5) as usize],
            paths[random(6) as usize],
            random(100_000),
            [200, 200, 200, 201, 304, 404, 500][random(7) as usize],
            random(50_000),
            random(900_000),
            random(u64::MAX) << 32 | random(u64::MAX),
        )
        .into_bytes()
    };
    (0..count).map(line).collect()
}

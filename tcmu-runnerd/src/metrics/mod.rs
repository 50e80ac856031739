//! Metrics for Prometheus and its relatives: OpenMetrics text over HTTP, on a Unix socket or a loopback address.
//!
//! | module | subject |
//! |---|---|
//! | `http` | who asks, and how much of that is listened to |
//! | `text` | what they get |
mod http;
mod text;

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
};

pub use text::encode;

use crate::statistics::Statistics;

/// Where metrics are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket, for root alone.
    Unix(PathBuf),
    /// A loopback address.
    Loopback(SocketAddr),
}

impl Endpoint {
    /// From the configuration; `None`: nowhere.
    pub fn parse(text: &str) -> Result<Option<Endpoint>, String> {
        const WANTED: &str = "127.0.0.1:PORT, [::1]:PORT, unix:/PATH or off is needed";
        if text == "off" {
            return Ok(None);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            // sun_path, with its zero at the end (unix(7)).
            return match Path::new(path) {
                path if path.is_absolute() && path.as_os_str().len() < 108 => Ok(Some(Endpoint::Unix(path.to_owned()))),
                _ => Err(format!("{path:?} is no absolute path of at most 107 bytes: {WANTED}")),
            };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Some(Endpoint::Loopback(address))),
            Ok(address) => {
                let ip = address.ip();
                Err(format!("{ip} is not a loopback address; whoever can reach it would see your devices: {WANTED}"))
            }
            Err(_) => Err(WANTED.into()),
        }
    }
}

/// Answers at an endpoint from now on, on threads of its own. `statistics` may take its time; `None`: the daemon ends.
pub fn serve(endpoint: &Endpoint, statistics: impl Fn() -> Option<Statistics> + Send + Sync + 'static) -> io::Result<()> {
    let respond = move || statistics().map(|statistics| encode(&statistics));
    match endpoint {
        Endpoint::Unix(path) => {
            let listener = bind(path)?;
            thread::Builder::new().name("metrics".into()).spawn(move || http::serve(|| Ok(listener.accept()?.0), respond))?;
            tracing::info!("metrics on {}", path.display());
        }
        Endpoint::Loopback(address) => {
            let listener = TcpListener::bind(address)?;
            tracing::info!("metrics on http://{}/metrics", listener.local_addr()?);
            thread::Builder::new().name("metrics".into()).spawn(move || http::serve(|| Ok(listener.accept()?.0), respond))?;
        }
    }
    Ok(())
}

/// A socket for root alone. One that an earlier daemon left is taken away.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let left = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if left && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn only_this_machine_can_ask() {
        assert_eq!(Endpoint::parse("off"), Ok(None));
        assert_eq!(Endpoint::parse("unix:/run/x"), Ok(Some(Endpoint::Unix("/run/x".into()))));
        for address in ["127.0.0.1:9899", "[::1]:9899", "127.9.9.9:1"] {
            assert_eq!(Endpoint::parse(address), Ok(Some(Endpoint::Loopback(address.parse().unwrap()))));
        }
        for wrong in ["0.0.0.0:9899", "[::]:9899", "192.168.0.1:1", "on", "", "9899", "localhost:1", "unix:", "unix:run/x"] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Endpoint::parse(&format!("unix:/{}", "x".repeat(107))).is_err());
    }

    #[test]
    fn a_socket_of_an_earlier_daemon_is_taken_over_and_one_that_is_used_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics");
        drop(UnixListener::bind(&path).unwrap());
        serve(&Endpoint::Unix(path.clone()), || Some(crate::statistics::tests::sample())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(serve(&Endpoint::Unix(path.clone()), || None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("# EOF\n"), "{answer}");
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(bind(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}

//! As much of HTTP/1.1 (RFC 9112) as it takes to be asked for one page: one request for each connection, and limits for all that others
//! decide.
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Most bytes of a request.
const REQUEST: usize = 8 << 10;
/// Connections at a time; more are closed at once.
const CONNECTIONS: usize = 4;
/// How long a request, and its answer, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What OpenMetrics text is called.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) trait Stream: Read + Write + Send + 'static {
    fn limit(&self, time: Duration) -> io::Result<()>;
    fn finish(&self);
}

macro_rules! stream {
    ($type:ty) => {
        impl Stream for $type {
            fn limit(&self, time: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(time))?;
                self.set_write_timeout(Some(time))
            }

            fn finish(&self) {
                let _ = self.shutdown(Shutdown::Write);
            }
        }
    };
}

stream!(TcpStream);
stream!(UnixStream);

/// Answers those who connect, for ever.
pub(super) fn serve<S: Stream>(
    mut accept: impl FnMut() -> io::Result<S>,
    page: impl Fn() -> Option<String> + Send + Sync + 'static,
) {
    let (page, open) = (Arc::new(page), Arc::new(AtomicUsize::new(0)));
    loop {
        let Ok(stream) = accept() else {
            // Out of descriptors: that passes.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (page, count) = (page.clone(), open.clone());
        let work = move || {
            // Whoever hangs up or takes too long is left.
            let _ = answer(stream, &*page);
            count.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().name("metrics-answer".into()).spawn(work).is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn answer(mut stream: impl Stream, page: &dyn Fn() -> Option<String>) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    let left = |end: Instant| end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut request = Vec::new();
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        stream.limit(left(end))?;
        let mut part = [0; 1024];
        let read = stream.read(&mut part)?;
        request.extend_from_slice(&part[..read]);
        if request.len() > REQUEST {
            return respond(&mut stream, "431 Request Header Fields Too Large", "text/plain", "too long\n", true);
        }
        if read == 0 || Instant::now() >= end {
            return Ok(());
        }
    }
    stream.limit(PATIENCE)?;
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) = (method, target, version, words.next()) else {
        return respond(&mut stream, "400 Bad Request", "text/plain", "this is not HTTP/1.1\n", true);
    };
    let body = method != "HEAD";
    if !matches!(method, "GET" | "HEAD") {
        return respond(&mut stream, "405 Method Not Allowed", "text/plain", "only GET\n", true);
    }
    if target.split('?').next() != Some("/metrics") {
        return respond(&mut stream, "404 Not Found", "text/plain", "try /metrics\n", body);
    }
    match page() {
        Some(text) => respond(&mut stream, "200 OK", CONTENT_TYPE, &text, body),
        None => respond(&mut stream, "503 Service Unavailable", "text/plain", "the daemon is stopping\n", body),
    }
}

fn respond(stream: &mut impl Stream, status: &str, kind: &str, text: &str, body: bool) -> io::Result<()> {
    let length = text.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    if body {
        stream.write_all(text.as_bytes())?;
    }
    stream.flush()?;
    stream.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &[u8]) -> String {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || answer(theirs, &|| Some("page\n".into())));
        // It may have heard enough before this was all.
        let _ = ours.write_all(request);
        let _ = ours.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = ours.read_to_end(&mut answer);
        let _ = server.join().unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn the_page_is_there_for_who_asks_for_it() {
        let answer = ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text"), "{answer}");
        assert!(answer.contains("\r\nContent-Length: 5\r\n") && answer.ends_with("\r\n\r\npage\n"), "{answer}");
        assert!(ask(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n").ends_with("page\n"));
        assert!(ask(b"HEAD /metrics HTTP/1.1\r\n\r\n").ends_with("Connection: close\r\n\r\n"));
    }

    #[test]
    fn everything_else_is_refused() {
        assert!(ask(b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(ask(b"POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert!(ask(b"GET /metrics HTTP/2\r\n\r\n").starts_with("HTTP/1.1 400 "));
        assert!(ask(b"\xff\xfe\r\n\r\n").starts_with("HTTP/1.1 400 "));
        assert_eq!(ask(b"GET /metrics HTTP/1.1\r\n"), "", "no end of the request");
        let long = [&b"GET /metrics HTTP/1.1\r\nX: "[..], &vec![b'x'; 2 * REQUEST]].concat();
        assert!(ask(&long).starts_with("HTTP/1.1 431 ") || ask(&long).is_empty());
    }

    #[test]
    fn more_than_a_few_connections_are_closed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || serve(|| Ok(listener.accept()?.0), || Some("page\n".into())));
        let silent: Vec<TcpStream> = (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut more = TcpStream::connect(address).unwrap();
        more.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
        let closed = more.read(&mut [0; 1]);
        assert!(closed.as_ref().map_or_else(|e| e.kind() == io::ErrorKind::ConnectionReset, |n| *n == 0), "{closed:?}");
        drop(silent);
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            if answer.ends_with("page\n") {
                return;
            }
            assert!(Instant::now() < end, "those that went left no room");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

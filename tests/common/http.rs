//! A small HTTP/1.1 server on 127.0.0.1 that misbehaves as told.
#![allow(dead_code)]
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// The first byte of `Range`.
    pub range: Option<usize>,
    pub if_range: Option<String>,
    pub authorization: Option<String>,
}

/// An answer, and how it is sent.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    /// `Content-Length`; none for a body that ends with the connection.
    pub length: Option<usize>,
    pub body: Vec<u8>,
    /// Pieces of so many bytes with a pause after each.
    pub slow: Option<(usize, Duration)>,
    /// Keeps the connection open after the body without sending anything.
    pub stall: bool,
}

impl Reply {
    pub fn new(status: u16, body: &[u8]) -> Self {
        Reply { status, headers: vec![], length: Some(body.len()), body: body.to_vec(), slow: None, stall: false }
    }
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    /// Announces all, sends only the first `n` bytes.
    pub fn cut(mut self, n: usize) -> Self {
        self.body.truncate(n);
        self
    }
    pub fn slow(mut self, piece: usize, millis: u64) -> Self {
        self.slow = Some((piece, Duration::from_millis(millis)));
        self
    }
    pub fn stall(mut self) -> Self {
        self.stall = true;
        self
    }
}

/// A well-behaved answer: the file, or its rest where the client has the same file's beginning.
pub fn file(seen: &Seen, body: &[u8], etag: &str) -> Reply {
    match seen.range {
        Some(from) if from >= body.len() => {
            Reply::new(416, b"").header("Content-Range", format!("bytes */{}", body.len()))
        }
        Some(from) if seen.if_range.as_deref().is_none_or(|v| v == etag) => {
            let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
            Reply::new(206, &body[from..]).header("Content-Range", range).header("ETag", etag)
        }
        _ => Reply::new(200, body).header("ETag", etag),
    }
}

type Handler = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

pub struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Answers each request by `handler(request, number)`, numbers from 0.
    pub fn start(handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, stop) = (Arc::new(Mutex::new(vec![])), Arc::new(AtomicBool::new(false)));
        let server = Server { address, seen: seen.clone(), stop: stop.clone() };
        let handler: Arc<Handler> = Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, seen, stop) = (handler.clone(), seen.clone(), stop.clone());
                // a client that goes away is part of the game
                std::thread::spawn(move || stream.map(|s| serve(s, &*handler, &seen, &stop)));
            }
        });
        server
    }
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    pub fn port(&self) -> u16 {
        self.address.port()
    }
    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
    /// Where each request so far began.
    pub fn ranges(&self) -> Vec<Option<usize>> {
        self.seen().iter().map(|s| s.range).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, handler: &Handler, seen: &Mutex<Vec<Seen>>, stop: &AtomicBool) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let mut request = Seen {
            method: words.next().unwrap_or_default().into(),
            path: words.next().unwrap_or_default().into(),
            ..Seen::default()
        };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = value.trim().trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
                "authorization" => request.authorization = Some(value.trim().into()),
                "if-range" => request.if_range = Some(value.trim().into()),
                _ => {}
            }
        }
        let number = {
            let mut all = seen.lock().unwrap();
            all.push(request.clone());
            all.len() - 1
        };
        if request.method == "CONNECT" {
            // a proxy: what follows on this connection is meant for another server
            out.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            continue;
        }
        let reply = handler(&request, number);
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
        reply.headers.iter().for_each(|(n, v)| head += &format!("{n}: {v}\r\n"));
        reply.length.iter().for_each(|l| head += &format!("Content-Length: {l}\r\n"));
        out.write_all((head + "\r\n").as_bytes())?;
        let (piece, pause) = reply.slow.unwrap_or((usize::MAX, Duration::ZERO));
        for part in reply.body.chunks(piece) {
            out.write_all(part)?;
            out.flush()?;
            std::thread::sleep(pause);
        }
        while reply.stall && !stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        return Ok(());
    }
}

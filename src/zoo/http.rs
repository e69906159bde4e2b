//! One HTTP request on a thread of its own, so that whoever waits for it can stop waiting at any moment.
use crate::access::{self, policy};
use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Bytes per piece.
const PIECE: usize = 64 << 10;
/// Pieces that may wait to be written.
const AHEAD: usize = 16;

/// What to ask for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The address; with `https` no redirect may lead to `http`.
    pub address: String,
    /// The first byte that is wanted: 0 for the whole file.
    pub from: u64,
    /// What tells whether the file is still the one that the earlier bytes came from.
    pub validator: Option<String>,
    /// What says who asks; it goes to this address alone, to none that this one leads to.
    pub token: Option<Secret>,
    /// How long to wait for a connection, an answer or more bytes.
    pub patience: Duration,
}

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// The parts of an answer's head that matter here.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Bytes of this answer's body, where told.
    pub length: Option<u64>,
    /// `Content-Range`: the first byte that comes, and the whole file's size.
    pub range: Option<(u64, Option<u64>)>,
    /// A strong entity tag.
    pub etag: Option<String>,
    /// When the file was last changed, as the server writes it.
    pub modified: Option<String>,
    /// The media type.
    pub media: String,
}

/// Why a request failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What happened, to follow "cannot download `x`: ".
    pub what: String,
    /// The likely fix, where there is one besides fetching the file by hand.
    pub fix: Option<&'static str>,
    /// Whether trying again may help.
    pub transient: bool,
}

impl Failure {
    /// A failure that trying again may mend.
    pub fn passing(what: impl Into<String>) -> Self {
        Failure { what: what.into(), fix: None, transient: true }
    }
    /// A failure that stays.
    pub fn lasting(what: impl Into<String>) -> Self {
        Failure { what: what.into(), fix: None, transient: false }
    }
    /// The same with what to do.
    pub fn fix(mut self, fix: &'static str) -> Self {
        self.fix = Some(fix);
        self
    }
}

/// What comes from the request's thread, in this order: `Head`, `Piece`s, `End`; or `Failed` at any point.
pub enum Event {
    /// The head of the answer.
    Head(Head),
    /// More of the body.
    Piece(Vec<u8>),
    /// The body is complete as far as the server's own count goes.
    End,
    /// Nothing more comes.
    Failed(Failure),
}

/// Starts the request. Dropping the receiver ends it at the next piece, or when its patience runs out.
pub fn start(request: Request) -> std::io::Result<Receiver<Event>> {
    let (send, receive) = sync_channel(AHEAD);
    std::thread::Builder::new().name("download".into()).spawn(move || {
        let last = match transfer(&request, &send) {
            Ok(()) => Event::End,
            Err(f) => Event::Failed(f),
        };
        // whoever asked has gone away
        let _ = send.send(last);
    })?;
    Ok(receive)
}

fn transfer(r: &Request, send: &SyncSender<Event>) -> Result<(), Failure> {
    let tls = ureq::tls::TlsConfig::builder().root_certs(roots()?).build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .user_agent(concat!("ld3sh/", env!("CARGO_PKG_VERSION")))
        .https_only(r.address.starts_with("https:"))
        .http_status_as_error(false)
        .redirect_auth_headers(ureq::config::RedirectAuthHeaders::Never)
        .timeout_resolve(Some(r.patience))
        .timeout_connect(Some(r.patience))
        .timeout_recv_response(Some(r.patience))
        .timeout_per_read(Some(r.patience))
        .build()
        .into();
    let mut call = agent.get(&r.address).header("Accept-Encoding", "identity");
    if let Some(Secret(token)) = &r.token {
        call = call.header("Authorization", format!("Bearer {token}"));
    }
    if r.from > 0 {
        call = call.header("Range", format!("bytes={}-", r.from));
        if let Some(v) = &r.validator {
            call = call.header("If-Range", v);
        }
    }
    let answer = call.call().map_err(|e| explain(&e))?;
    if send.send(Event::Head(head(&answer))).is_err() {
        return Ok(());
    }
    let mut body = answer.into_body().into_reader();
    let mut buffer = vec![0; PIECE];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                if send.send(Event::Piece(buffer[..n].to_vec())).is_err() {
                    return Ok(());
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(explain(&ureq::Error::from(e))),
        }
    }
}

/// Who vouches for servers: the certificates of `SSL_CERT_FILE`, as in other programs, or Mozilla's.
fn roots() -> Result<ureq::tls::RootCerts, Failure> {
    use ureq::tls::{PemItem, RootCerts, parse_pem};
    let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|p| !p.is_empty()) else { return Ok(RootCerts::WebPki) };
    let fix = "let SSL_CERT_FILE name a file of certificates in PEM form";
    let wrong = |what: String| {
        Failure::lasting(format!("SSL_CERT_FILE, `{}`: {what}", std::path::Path::new(&path).display())).fix(fix)
    };
    // this user's environment names it, no script
    let _own = policy::own();
    let file = access::read(&path).map_err(|e| wrong(e.to_string()))?;
    let pem = file.bytes().map_err(|e| wrong(e.to_string()))?;
    let mut found = vec![];
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(c) = item.map_err(|e| wrong(e.to_string()))? {
            found.push(c);
        }
    }
    if found.is_empty() { Err(wrong("there is no certificate in it".into())) } else { Ok(found.into()) }
}

fn head(answer: &ureq::http::Response<ureq::Body>) -> Head {
    let text = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    Head {
        status: answer.status().as_u16(),
        length: text("content-length").and_then(|l| l.parse().ok()),
        range: text("content-range").and_then(content_range),
        etag: text("etag").filter(|t| t.starts_with('"')).map(str::to_string),
        modified: text("last-modified").map(str::to_string),
        media: text("content-type").unwrap_or_default().to_string(),
    }
}

/// Reads `bytes 5-9/10` as (5, Some(10)), and `bytes 5-9/*` as (5, None).
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}

/// What a failed exchange means to someone who waits for a file.
fn explain(e: &ureq::Error) -> Failure {
    use std::io::ErrorKind as K;
    use ureq::Error as U;
    const TLS: &str = "look at this machine's clock, and for a proxy that opens secure connections: SSL_CERT_FILE can name its certificates";
    let unknown =
        || Failure::lasting("the server's name cannot be resolved").fix("connect this machine to the internet");
    match e {
        U::HostNotFound => unknown(),
        U::Timeout(t) => Failure::passing(format!("the server does not answer ({t})")),
        U::Rustls(e) => Failure::lasting(format!("the connection is not secure: {e}")).fix(TLS),
        U::Tls(e) => Failure::lasting(format!("the connection is not secure: {e}")).fix(TLS),
        U::RequireHttpsOnly(_) => Failure::lasting("the server redirects to an address that is not secure"),
        U::TooManyRedirects => Failure::lasting("the server redirects in circles"),
        U::ConnectProxyFailed(e) => Failure::lasting(format!("the proxy refuses: {e}"))
            .fix("look at the variables HTTPS_PROXY, HTTP_PROXY and ALL_PROXY"),
        U::Io(e) => match e.kind() {
            K::UnexpectedEof | K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe => {
                Failure::passing("the connection ended too early")
            }
            K::TimedOut | K::WouldBlock => Failure::passing("the server does not answer"),
            K::ConnectionRefused => Failure::lasting("the connection was refused"),
            K::NetworkUnreachable | K::HostUnreachable => {
                Failure::lasting("the network cannot be reached").fix("connect this machine to the internet")
            }
            // rustls reports what is wrong with a handshake so
            K::InvalidData => Failure::lasting(format!("the connection is not secure: {e}")).fix(TLS),
            // the standard library has no kind for it
            _ if e.to_string().contains("lookup address") => unknown(),
            _ => Failure::lasting(e.to_string()),
        },
        U::Protocol(e) => Failure::lasting(format!("the answer is not HTTP as it should be: {e}")),
        U::BadUri(e) => Failure::lasting(format!("the address is not a valid one: {e}")),
        U::Http(e) => Failure::lasting(format!("the address is not a valid one: {e}")),
        e => Failure::lasting(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("bytes */10"), None);
        assert_eq!(content_range("pages 5-9/10"), None);
    }
}

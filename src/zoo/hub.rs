//! The hub that folders of models are published at: its addresses, the user's token for it, and what a repository holds.
use super::Settings;
use super::http::{self, Event, Request, Secret};
use crate::host::check_cancelled;
use crate::{Error, Kind, Result};
use serde::Deserialize;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// Where it is, unless the environment says otherwise.
const HUB: &str = "https://huggingface.co";
/// What to do where it does not give a file to everybody.
pub const GATED: &str = "log in at the hub, accept the conditions on the model's page, and set HF_TOKEN to a token of yours that may read it";
/// The most bytes of a list of files.
const LONGEST: usize = 8 << 20;
/// The most files that a repository may have.
const MOST: usize = 4096;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Listed {
    /// "file" or "directory".
    #[serde(rename = "type")]
    kind: String,
    /// Its place in the repository.
    pub path: String,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    lfs: Option<Stored>,
}

/// Where large files really are.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Stored {
    oid: String,
}

impl Listed {
    /// Its SHA-256, where the hub tells.
    pub fn sha256(&self) -> Option<String> {
        let oid = self.lfs.as_ref()?.oid.to_ascii_lowercase();
        (oid.len() == 64 && oid.bytes().all(|b| b.is_ascii_hexdigit())).then_some(oid)
    }
    /// Whether its place is one within a folder, by plain names.
    fn is_plain(&self) -> bool {
        let part = |p: &str| !p.is_empty() && p != "." && p != ".." && !p.contains(['\\', ':', '\0']);
        self.path.split('/').all(part)
    }
}

/// The hub's address: `HF_ENDPOINT`, as its own tools read it (a mirror, say), or the public one.
pub fn base() -> String {
    let own = std::env::var("HF_ENDPOINT").ok().filter(|v| !v.is_empty());
    own.unwrap_or_else(|| HUB.into()).trim_end_matches('/').to_string()
}

/// Whether an address is one of the hub.
pub fn is(address: &str) -> bool {
    address.strip_prefix(&base()).is_some_and(|rest| rest.starts_with('/'))
}

/// The user's token, for an address of the hub alone; `HF_TOKEN` is where it comes from, and nowhere else.
pub fn token(address: &str) -> Option<Secret> {
    let token = std::env::var("HF_TOKEN").ok().map(|t| t.trim().to_string()).filter(|t| !t.is_empty());
    // a line break in it would be another header
    token.filter(|t| is(address) && t.bytes().all(|b| b.is_ascii_graphic())).map(Secret)
}

/// The address of a file in a repository.
pub fn address(repository: &str, path: &str) -> String {
    format!("{}/{repository}/resolve/main/{path}", base())
}

/// A repository's page.
pub fn page(repository: &str) -> String {
    format!("{}/{repository}", base())
}

/// All files of a repository.
///
/// Fails where the hub does not answer, or not with a list.
pub fn list(repository: &str, settings: &Settings) -> Result<Vec<Listed>> {
    let address = format!("{}/api/models/{repository}/tree/main?recursive=true", base());
    let failed = |what: String, fix: Option<&str>| {
        let e = Error::new(Kind::Io, format!("the files of `{repository}` cannot be listed: {what}"));
        e.hint(fix.map_or_else(|| format!("is {} within reach? HF_ENDPOINT names a mirror", base()), str::to_string))
    };
    let bytes = match body(&address, settings) {
        Ok(bytes) => bytes,
        Err(f) => {
            check_cancelled()?;
            return Err(failed(f.what, f.fix));
        }
    };
    let all: Vec<Listed> =
        serde_json::from_slice(&bytes).map_err(|e| failed(format!("the answer is not the hub's ({e})"), None))?;
    if all.len() > MOST {
        return Err(failed(format!("there are {} of them", all.len()), Some("is it the repository of a model?")));
    }
    Ok(all.into_iter().filter(|f| f.kind == "file" && f.is_plain()).collect())
}

/// A small answer, as a whole.
fn body(address: &str, settings: &Settings) -> std::result::Result<Vec<u8>, http::Failure> {
    let mut tries = 1;
    loop {
        match once(address, settings) {
            Err(f) if f.transient && tries < settings.attempts => {
                std::thread::sleep(settings.backoff.saturating_mul(1 << tries.min(10)));
                tries += 1;
            }
            done => return done,
        }
    }
}

fn once(address: &str, settings: &Settings) -> std::result::Result<Vec<u8>, http::Failure> {
    use http::Failure;
    let request = Request {
        address: address.into(),
        from: 0,
        validator: None,
        token: token(address),
        patience: settings.patience,
    };
    let events = http::start(request).map_err(|e| Failure::lasting(format!("no thread: {e}")))?;
    let mut all = vec![];
    loop {
        check_cancelled().map_err(|e| Failure::lasting(e.message().to_string()))?;
        let event = match events.recv_timeout(Duration::from_millis(25)) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::passing("the answer ended without a word")),
        };
        match event {
            Event::Head(head) => match head.status {
                200 => {}
                401 | 403 => return Err(Failure::lasting(format!("the hub answered {}", head.status)).fix(GATED)),
                404 => {
                    return Err(
                        Failure::lasting("the hub knows no such repository").fix("`ld3sh models` lists what there is")
                    );
                }
                408 | 425 | 429 | 500..=599 => {
                    return Err(Failure::passing(format!("the hub answered {}", head.status)));
                }
                s => return Err(Failure::lasting(format!("the hub answered {s}"))),
            },
            Event::Piece(bytes) => {
                all.extend(bytes);
                if all.len() > LONGEST {
                    return Err(Failure::lasting("the answer is longer than any list of files"));
                }
            }
            Event::End => return Ok(all),
            Event::Failed(f) => return Err(f),
        }
    }
}

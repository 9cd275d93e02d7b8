//! Asking the running program over its Unix socket.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::api::{Failure, VERSION_HEADER};

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// There is no socket.
    Missing(PathBuf),
    /// There is one, but nobody listens.
    Dead(PathBuf),
    /// This user may not use it.
    NotAllowed(PathBuf),
    /// The conversation broke off.
    Broken(PathBuf, String),
    /// The running program is another version, and its answer is not understood.
    OtherVersion {
        /// The running program's version.
        running: String,
        /// What was not understood.
        cause: String,
    },
    /// The program answered that it does not do it.
    Refused(Refused),
}

/// A refusal of the running program's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// Why.
    pub failure: Failure,
}

impl ClientError {
    /// Whether the program was not reached, as opposed to having refused.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(_) => Some(
                "is dnscrub running? Its socket is `control.socket` in its configuration; name another one with --socket PATH"
                    .to_owned(),
            ),
            Self::Dead(_) => Some("dnscrub has ended without removing its socket: start it again".to_owned()),
            Self::NotAllowed(_) => Some(
                "use sudo, or join the group that owns the socket; `control.socket-mode` says who may use it".to_owned(),
            ),
            Self::Broken(..) => Some("dnscrub's log may say more".to_owned()),
            Self::OtherVersion { .. } => Some("restart dnscrub, so that both are the same version".to_owned()),
            Self::Refused(refused) => refused.failure.hint.clone(),
        }
    }

    fn connecting(path: &Path, failure: &io::Error) -> Self {
        let path = path.to_owned();
        match failure.kind() {
            io::ErrorKind::NotFound => Self::Missing(path),
            io::ErrorKind::ConnectionRefused => Self::Dead(path),
            io::ErrorKind::PermissionDenied => Self::NotAllowed(path),
            _ => Self::Broken(path, failure.to_string()),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(
                formatter,
                "cannot reach dnscrub: there is no socket at {}",
                path.display()
            )?,
            Self::Dead(path) => write!(
                formatter,
                "cannot reach dnscrub: nobody answers at {}",
                path.display()
            )?,
            Self::NotAllowed(path) => {
                write!(
                    formatter,
                    "cannot reach dnscrub: this user may not use its socket {}",
                    path.display()
                )?;
            }
            Self::Broken(path, cause) => write!(
                formatter,
                "cannot talk to dnscrub at {}: {cause}",
                path.display()
            )?,
            Self::OtherVersion { running, cause } => write!(
                formatter,
                "the running dnscrub is version {running}, this command is {}: its answer is not understood ({cause})",
                env!("CARGO_PKG_VERSION")
            )?,
            Self::Refused(refused) => formatter.write_str(&refused.failure.error)?,
        }
        match self.hint() {
            Some(hint) => write!(formatter, "\nhelp: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ClientError {}

/// A client of one running program. Each request has its own connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

struct Answer {
    status: StatusCode,
    version: String,
    body: Bytes,
}

impl Client {
    /// For the program that listens on this socket.
    #[must_use]
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Sends a request; the answer is JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let answer = self.answer(method, path, body).await?;
        serde_json::from_slice(&answer.body)
            .map_err(|failure| self.not_understood(answer.version, failure.to_string()))
    }

    /// Sends a request; the answer is text.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn text(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<String, ClientError> {
        let answer = self.answer(method, path, body).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Answer, ClientError> {
        let answer = self.exchange(method, path, body).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        match serde_json::from_slice(&answer.body) {
            // a path it does not know: it is older or newer
            Ok(Failure { error, .. })
                if answer.status == StatusCode::NOT_FOUND
                    && differs(&answer.version)
                    && error.contains("this path") =>
            {
                Err(self.not_understood(answer.version, error))
            }
            Ok(failure) => Err(ClientError::Refused(Refused {
                status: answer.status.as_u16(),
                failure,
            })),
            Err(failure) => Err(self.not_understood(answer.version, failure.to_string())),
        }
    }

    fn not_understood(&self, running: String, cause: String) -> ClientError {
        if differs(&running) {
            ClientError::OtherVersion { running, cause }
        } else {
            ClientError::Broken(
                self.socket.clone(),
                format!("its answer is not understood: {cause}"),
            )
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Answer, ClientError> {
        let broken = |cause: String| ClientError::Broken(self.socket.clone(), cause);
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|failure| ClientError::connecting(&self.socket, &failure))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|failure| broken(failure.to_string()))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "dnscrub")
            .body(Full::new(Bytes::from(body)))
            .map_err(|failure| broken(failure.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|failure| broken(failure.to_string()))?;
        let status = response.status();
        let version = response
            .headers()
            .get(VERSION_HEADER)
            .and_then(|version| version.to_str().ok())
            .unwrap_or("unknown")
            .to_owned();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|failure| broken(failure.to_string()))?
            .to_bytes();
        connection.abort();
        Ok(Answer {
            status,
            version,
            body,
        })
    }
}

fn differs(version: &str) -> bool {
    version != env!("CARGO_PKG_VERSION")
}

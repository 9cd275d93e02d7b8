//! Unix sockets in the file system: of the control API, and of ExaBGP's process.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why there is no socket.
#[derive(Debug)]
pub enum BindError {
    /// Another program answers at it.
    InUse(PathBuf),
    /// Something that is not a socket stands there.
    NotASocket(PathBuf),
    /// The operating system refused.
    System(PathBuf, io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(
                formatter,
                "another dnscrub runs already: it answers at the socket {} (set another `control.socket` and `routes.socket` to run both)",
                path.display()
            ),
            Self::NotASocket(path) => {
                write!(
                    formatter,
                    "the socket cannot be at {}: a file that is no socket stands there",
                    path.display()
                )
            }
            Self::System(path, failure) => {
                write!(
                    formatter,
                    "cannot open the socket {}: {failure} (`control.socket` and `routes.socket` say where sockets are)",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for BindError {}

/// A listening socket. Its file is removed with it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode, so that no other program's socket is removed.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds the socket with these permission bits. A socket that a dead program left is replaced.
pub(crate) fn bind(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), BindError> {
    let system = |failure| BindError::System(path.to_owned(), failure);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(system)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match UnixStream::connect(path) {
            Ok(_) => return Err(BindError::InUse(path.to_owned())),
            Err(failure) if failure.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(system)?;
            }
            Err(failure) => return Err(system(failure)),
        },
        Ok(_) => return Err(BindError::NotASocket(path.to_owned())),
        Err(failure) if failure.kind() == io::ErrorKind::NotFound => {}
        Err(failure) => return Err(system(failure)),
    }
    let listener = UnixListener::bind(path).map_err(system)?;
    let metadata = fs::symlink_metadata(path).map_err(system)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: (metadata.dev(), metadata.ino()),
    };
    // until here the process's umask applies, which by default lets nobody else write
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(system)?;
    Ok((listener, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_programs_socket_is_replaced_and_a_living_ones_respected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/control.sock");
        let (living, file) = bind(&path, 0o600).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let refused = bind(&path, 0o600).unwrap_err();
        assert!(matches!(refused, BindError::InUse(_)), "{refused}");

        drop(living);
        std::mem::forget(file);
        assert!(path.exists(), "as after kill -9");
        let (_listener, file) = bind(&path, 0o660).unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn other_files_are_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(matches!(
            bind(&path, 0o600).unwrap_err(),
            BindError::NotASocket(_)
        ));
        let inside = path.join("control.sock");
        assert!(
            bind(&inside, 0o600)
                .unwrap_err()
                .to_string()
                .contains("precious/control.sock")
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");

        let socket = folder.path().join("control.sock");
        let (_listener, file) = bind(&socket, 0o600).unwrap();
        fs::remove_file(&socket).unwrap();
        fs::write(&socket, "another one's").unwrap();
        drop(file);
        assert!(socket.exists());
    }
}

//! Judged places, and all that can be done to a file by its name.
use std::fs::{self, File, Metadata, OpenOptions, ReadDir};
use std::io::Result;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// A file or folder that may be read.
#[derive(Debug, Clone)]
pub struct Source(pub(super) PathBuf);

/// A file or folder that may be made, replaced or deleted.
#[derive(Debug, Clone)]
pub struct Target(pub(super) PathBuf);

impl AsRef<Path> for Target {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}
impl Deref for Source {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}
impl Deref for Target {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Source {
    /// Opens the file.
    pub fn open(&self) -> Result<File> {
        File::open(&self.0)
    }
    /// All its bytes.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        fs::read(&self.0)
    }
    /// What the system knows of it.
    pub fn meta(&self) -> Result<Metadata> {
        fs::metadata(&self.0)
    }
    /// What is in the folder.
    pub fn list(&self) -> Result<ReadDir> {
        fs::read_dir(&self.0)
    }
}

impl Target {
    /// The file that a link leads to; itself where it is none.
    pub fn behind_links(self) -> Target {
        Target(fs::canonicalize(&self.0).unwrap_or(self.0))
    }
    /// The folder that it is in.
    pub fn home(&self) -> Target {
        Target(self.0.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf())
    }
    /// What the system knows of it.
    pub fn meta(&self) -> Result<Metadata> {
        fs::metadata(&self.0)
    }
    /// Opens what is there for writing; nothing is made or cut.
    pub fn open(&self) -> Result<File> {
        OpenOptions::new().write(true).open(&self.0)
    }
    /// Opens it for writing, made if need be; what is in it stays. A link at its name is an error.
    pub fn open_or_make(&self) -> Result<File> {
        self.no_link(OpenOptions::new().create(true).truncate(false).write(true))
    }
    /// Opens it for adding at its end, made for the user alone if need be. A link at its name is an error.
    pub fn open_to_append(&self) -> Result<File> {
        let mut options = OpenOptions::new();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.create(true).append(true).open(&self.0)
    }
    /// Opens it for reading and for adding at its end, made if need be. A link at its name is an error.
    pub fn open_to_read_and_append(&self) -> Result<File> {
        self.no_link(OpenOptions::new().create(true).read(true).append(true))
    }
    /// Opens it where its name is that of the file itself: who put a link there wants another one written.
    fn no_link(&self, options: &mut OpenOptions) -> Result<File> {
        let link = || fs::symlink_metadata(&self.0).is_ok_and(|m| m.file_type().is_symlink());
        let refused = || Err(std::io::Error::other("a link stands there: delete it"));
        if link() {
            return refused();
        }
        let file = options.open(&self.0)?;
        // it may have been put there meanwhile
        if link() { refused() } else { Ok(file) }
    }
    /// A temporary file in this folder.
    pub fn temporary(&self, builder: &tempfile::Builder) -> Result<tempfile::NamedTempFile> {
        builder.tempfile_in(&self.0)
    }
    /// Makes the folder that it is in.
    pub fn make_parent(&self) -> Result<()> {
        self.0.parent().map_or(Ok(()), fs::create_dir_all)
    }
    /// Makes the folder, and those that it is in.
    pub fn make_folder(&self) -> Result<()> {
        fs::create_dir_all(&self.0)
    }
    /// Flushes the folder itself to the disk, where the system can.
    pub fn sync_folder(&self) -> Result<()> {
        File::open(&self.0)?.sync_all()
    }
    /// Deletes the file.
    pub fn remove(&self) -> Result<()> {
        fs::remove_file(&self.0)
    }
    /// Deletes the folder with all that is in it; links in it are not followed.
    pub fn remove_folder(&self) -> Result<()> {
        fs::remove_dir_all(&self.0)
    }
    /// Gives the file another name, in place of what had it.
    pub fn rename(&self, to: &Path) -> Result<()> {
        fs::rename(&self.0, to)
    }
    /// Keeps everybody but the user from reading it.
    pub fn make_private(&self) -> Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&self.0, fs::Permissions::from_mode(0o600))
        }
        #[cfg(not(unix))]
        Ok(())
    }
}

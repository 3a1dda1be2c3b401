//! Certificates and keys, as operators keep them: PEM files. What is wrong with one is said with its key in the
//! configuration, its name, and what to do.

use std::{fmt, path::PathBuf, sync::Arc, time::SystemTime};

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};

use super::certificate;
use crate::config::{Pair, TlsFile};

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    key: &'static str,
    file: Option<PathBuf>,
    why: String,
}

impl FileError {
    pub(super) fn new(file: &TlsFile, why: impl Into<String>) -> FileError {
        FileError { key: file.key, file: Some(file.path.clone()), why: why.into() }
    }

    /// Where no file is named.
    pub(super) fn of_key(key: &'static str, why: impl Into<String>) -> FileError {
        FileError { key, file: None, why: why.into() }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "`{}`: {}: {}", self.key, file.display(), self.why),
            None => write!(f, "`{}`: {}", self.key, self.why),
        }
    }
}

impl std::error::Error for FileError {}

/// A certificate with those of the CAs between it and the root, its key, and when the first of them ends.
#[derive(Debug)]
pub(super) struct Identity {
    pub certified: CertifiedKey,
    pub valid_until: SystemTime,
}

/// How all of TLS is calculated here.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl Identity {
    /// From its two files.
    pub fn load(pair: &Pair) -> Result<Identity, FileError> {
        let chain = certificates(&pair.certificate)?;
        let ends = chain.iter().map(|one| certificate::valid_until(one));
        let no_certificate = || FileError::new(&pair.certificate, "what is in it is no certificate (X.509)");
        let valid_until = ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().min());
        let valid_until = valid_until.ok_or_else(no_certificate)?;
        let key = provider().key_provider.load_private_key(private_key(&pair.key)?).map_err(|_| {
            FileError::new(
                &pair.key,
                "the key is of a kind that is not known here: make an ECDSA P-256, Ed25519 or RSA key",
            )
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let why = format!(
                    "it is not the key of the certificate in {}: the two must be made together, and the certificate itself \
                     must stand first in its file",
                    pair.certificate.path.display()
                );
                return Err(FileError::new(&pair.key, why));
            }
            Err(_) => return Err(no_certificate()),
        }
        Ok(Identity { certified, valid_until })
    }
}

/// The certificates of CAs that are trusted.
pub(super) fn roots(file: &TlsFile) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|_| FileError::new(file, "what is in it is no certificate (X.509) of a CA"))?;
    }
    Ok(roots)
}

fn certificates(file: &TlsFile) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(file)?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|why| FileError::new(file, malformed(&why)))?;
    if found.is_empty() {
        let instead = if holds(&bytes, "PRIVATE KEY") { "a key and no certificate" } else { "no certificate" };
        let why = format!("there is {instead} in it: it must be PEM text with -----BEGIN CERTIFICATE-----");
        return Err(FileError::new(file, why));
    }
    Ok(found)
}

fn private_key(file: &TlsFile) -> Result<PrivateKeyDer<'static>, FileError> {
    let bytes = read(file)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|why| {
        let path = file.path.display();
        let why = match why {
            _ if holds(&bytes, "ENCRYPTED") => {
                format!("the key is encrypted: `openssl pkey -in {path} -out FILE` writes it without, for this user alone to read")
            }
            pem::Error::NoItemsFound => "there is no key in it: it must be PEM text with -----BEGIN PRIVATE KEY-----".to_owned(),
            why => malformed(&why),
        };
        FileError::new(file, why)
    })
}

fn read(file: &TlsFile) -> Result<Vec<u8>, FileError> {
    std::fs::read(&file.path).map_err(|why| FileError::new(file, format!("cannot read it: {why}")))
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}

/// Nothing of the file's content may be shown.
fn malformed(why: &pem::Error) -> String {
    let what = match why {
        pem::Error::MissingSectionEnd { .. } => "a section has no end (-----END ...-----): the file may be cut short",
        pem::Error::Base64Decode(_) => "a section is no base64: the file is damaged",
        _ => "it is no PEM text",
    };
    what.to_owned()
}

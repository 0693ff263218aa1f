//! Who is who on `wss://`: certificates and keys in PEM files.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::{Error, Result};

/// Bytes of a file, at most.
const LARGEST: u64 = 1 << 20;

/// Lets paths of files that do not begin at the root begin at a folder. Files of those who have none are not read for them.
///
/// # Errors
/// When there are files and no folder.
pub(crate) fn place(
    files: [&mut Option<PathBuf>; 3],
    folder: Option<&Path>,
) -> std::result::Result<(), &'static str> {
    for path in files.into_iter().flatten() {
        let folder = folder.ok_or(
            "files of certificates are not read for others; put the topology into the daemon's folder",
        )?;
        *path = folder.join(&*path);
    }
    Ok(())
}

/// The files of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Its own certificates, its own first. A server needs one.
    pub certificate: Option<PathBuf>,
    /// The key of the certificate.
    pub key: Option<PathBuf>,
    /// The authorities that vouch for the other end. A server that has some lets in nobody for whom they do not.
    pub ca: Option<PathBuf>,
}

fn wrong(path: &Path, what: &impl std::fmt::Display) -> Error {
    Error::Io {
        what: format!("use {}", path.display()),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, what.to_string()),
    }
}

fn failed(what: &str, e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::io(what, std::io::Error::other(e))
}

/// What a file has, if it is one, and not too long for what it is to be. Nobody waits for a pipe.
fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |e| Error::io(format!("read {}", path.display()), e);
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(wrong(path, &"it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path)?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| wrong(path, &e))?;
    if all.is_empty() {
        return Err(wrong(path, &"it has no certificate (PEM)"));
    }
    Ok(all)
}

impl Files {
    /// Its certificate with the key, if it has one.
    fn own(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else {
            return Ok(None);
        };
        let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| wrong(key, &e))?;
        Ok(Some((certificates(certificate)?, private)))
    }

    /// Those of a file, or those that this host trusts.
    fn authorities(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        if let Some(ca) = &self.ca {
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|e| wrong(ca, &e))?;
            }
        } else {
            // What cannot be read of the host's vouches for nobody.
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
        Ok(roots)
    }

    /// For a server.
    ///
    /// # Errors
    /// The file that cannot be used.
    pub fn acceptor(&self) -> Result<TlsAcceptor> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| failed("set TLS up", e))?;
        let builder = if self.ca.is_some() {
            let roots = Arc::new(self.authorities()?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| failed("check clients", e))?)
        } else {
            builder.with_no_client_auth()
        };
        let Some((chain, key)) = self.own()? else {
            return Err(Error::Unsupported {
                what: "certificate for wss://".into(),
                remedy: "give the tunnel `certificate` and `key`".into(),
            });
        };
        let config = builder.with_single_cert(chain, key);
        Ok(TlsAcceptor::from(Arc::new(
            config.map_err(|e| failed("use the certificate", e))?,
        )))
    }

    /// For a client, with the name that the server's certificate is to have.
    ///
    /// # Errors
    /// The file that cannot be used, or a name that no certificate can have.
    pub fn connector(&self, host: &str) -> Result<(TlsConnector, ServerName<'static>)> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed("set TLS up", e))?
            .with_root_certificates(self.authorities()?);
        let config = match self.own()? {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| failed("use the certificate", e))?,
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|e| failed("name the server", e))?;
        Ok((TlsConnector::from(Arc::new(config)), name))
    }
}

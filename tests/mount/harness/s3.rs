//! The independent S3 client: one bucket, asked by the plain SDK and never through the mount. In the `plain` mode a folder
//! stands for the bucket.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::sync::OnceLock;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::EncodingType;
use futures_util::stream::{StreamExt, TryStreamExt};

use super::outcome::{Failure, Outcome};

/// The keys that every server of the suite is started with.
pub const ACCESS_KEY: &str = "suite-access";
/// See [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "suite-secret-key";

/// Runs a future on the suite's own runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("two threads")
        })
        .block_on(future)
}

/// A client for an endpoint.
pub fn client(endpoint: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "suite"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}

/// A key as a listing with `encoding-type=url` spells it.
fn decoded(key: &str) -> Outcome<String> {
    Ok(percent_encoding::percent_decode_str(&key.replace('+', " ")).decode_utf8()?.into_owned())
}

/// What a HEAD tells.
#[derive(Debug)]
pub struct Head {
    pub size_bytes: u64,
    pub content_type: String,
    pub metadata: BTreeMap<String, String>,
}

/// One bucket, or the folder that stands for it.
#[derive(Clone, Debug)]
pub enum Bucket {
    S3 { client: Client, name: String },
    Folder(PathBuf),
}

impl Bucket {
    /// The bytes of an object; `None` if there is none.
    pub fn get(&self, key: &str) -> Outcome<Option<Vec<u8>>> {
        match self {
            Self::Folder(root) => Ok(fs::read(root.join(key)).ok()),
            Self::S3 { client, name } => block_on(async {
                match client.get_object().bucket(name).key(key).send().await {
                    Ok(answer) => Ok(Some(answer.body.collect().await?.to_vec())),
                    Err(error) if error.as_service_error().is_some_and(GetObjectError::is_no_such_key) => Ok(None),
                    Err(error) => Err(Failure(format!("GET {key}: {}", aws_sdk_s3::error::DisplayErrorContext(error)))),
                }
            }),
        }
    }

    /// Writes an object.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Outcome {
        match self {
            Self::Folder(root) => {
                let path = root.join(key);
                if key.ends_with('/') {
                    return Ok(fs::create_dir_all(path)?);
                }
                fs::create_dir_all(path.parent().expect("a key lies in the folder"))?;
                Ok(fs::write(path, bytes)?)
            }
            Self::S3 { client, name } => {
                let body = ByteStream::from(bytes.to_vec());
                match block_on(client.put_object().bucket(name).key(key).body(body).send()) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(Failure(format!("PUT {key}: {}", aws_sdk_s3::error::DisplayErrorContext(error)))),
                }
            }
        }
    }

    /// Writes an object that says something of itself.
    pub fn put_with(&self, key: &str, bytes: &[u8], metadata: &[(&str, &str)]) -> Outcome {
        let Self::S3 { client, name } = self else { return Err(Failure("a folder keeps no metadata".into())) };
        let mut put = client.put_object().bucket(name).key(key).body(ByteStream::from(bytes.to_vec()));
        for (name, value) in metadata {
            put = put.metadata(*name, *value);
        }
        match block_on(put.send()) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure(format!("PUT {key}: {}", aws_sdk_s3::error::DisplayErrorContext(error)))),
        }
    }

    /// Writes many objects side by side, each holding its own key.
    pub fn put_many(&self, keys: &[String]) -> Outcome {
        match self {
            Self::Folder(_) => keys.iter().try_for_each(|key| self.put(key, key.as_bytes())),
            Self::S3 { client, name } => block_on(async {
                futures_util::stream::iter(keys)
                    .map(|key| async move {
                        let body = ByteStream::from(key.clone().into_bytes());
                        client.put_object().bucket(name).key(key).body(body).send().await
                    })
                    .buffer_unordered(16)
                    .try_for_each(|_| async { Ok(()) })
                    .await?;
                Ok(())
            }),
        }
    }

    /// Deletes an object.
    pub fn delete(&self, key: &str) -> Outcome {
        match self {
            Self::Folder(root) => Ok(fs::remove_file(root.join(key))?),
            Self::S3 { client, name } => {
                block_on(client.delete_object().bucket(name).key(key).send())?;
                Ok(())
            }
        }
    }

    /// What a HEAD tells; `None` if there is no object.
    pub fn head(&self, key: &str) -> Outcome<Option<Head>> {
        match self {
            Self::Folder(root) => Ok(fs::metadata(root.join(key)).ok().map(|m| Head {
                size_bytes: if m.is_dir() { 0 } else { m.len() },
                content_type: if m.is_dir() { "application/x-directory".into() } else { String::new() },
                metadata: BTreeMap::new(),
            })),
            Self::S3 { client, name } => block_on(async {
                match client.head_object().bucket(name).key(key).send().await {
                    Ok(answer) => Ok(Some(Head {
                        size_bytes: u64::try_from(answer.content_length().unwrap_or(0)).unwrap_or(0),
                        content_type: answer.content_type().unwrap_or_default().to_owned(),
                        metadata: answer.metadata.unwrap_or_default().into_iter().collect(),
                    })),
                    Err(error) if error.raw_response().is_some_and(|r| r.status().as_u16() == 404) => Ok(None),
                    Err(error) => {
                        Err(Failure(format!("HEAD {key}: {}", aws_sdk_s3::error::DisplayErrorContext(error))))
                    }
                }
            }),
        }
    }

    /// All keys under a prefix with their sizes.
    pub fn list(&self, prefix: &str) -> Outcome<BTreeMap<String, u64>> {
        match self {
            Self::Folder(root) => {
                let mut found = BTreeMap::new();
                let mut folders = vec![root.join(prefix)];
                while let Some(folder) = folders.pop() {
                    for entry in fs::read_dir(folder).into_iter().flatten() {
                        let entry = entry?;
                        if entry.file_type()?.is_dir() {
                            folders.push(entry.path());
                        } else {
                            let key = entry.path().strip_prefix(root)?.to_string_lossy().into_owned();
                            found.insert(key, entry.metadata()?.len());
                        }
                    }
                }
                Ok(found)
            }
            Self::S3 { client, name } => block_on(async {
                let mut found = BTreeMap::new();
                // XML cannot carry every key as it is.
                let request = client.list_objects_v2().bucket(name).prefix(prefix).encoding_type(EncodingType::Url);
                let mut pages = request.into_paginator().send();
                while let Some(page) = pages.next().await {
                    let page = page?;
                    let is_encoded = page.encoding_type() == Some(&EncodingType::Url);
                    for object in page.contents() {
                        let size = u64::try_from(object.size().unwrap_or(0)).unwrap_or(0);
                        let key = object.key().unwrap_or_default();
                        found.insert(if is_encoded { decoded(key)? } else { key.to_owned() }, size);
                    }
                }
                Ok(found)
            }),
        }
    }

    /// Multipart uploads that were begun and not ended.
    pub fn pending_uploads(&self) -> Outcome<Vec<String>> {
        match self {
            Self::Folder(_) => Ok(Vec::new()),
            Self::S3 { client, name } => {
                let answer = block_on(client.list_multipart_uploads().bucket(name).send())?;
                Ok(answer.uploads().iter().map(|u| u.key().unwrap_or_default().to_owned()).collect())
            }
        }
    }

    /// Makes the bucket; folders are made by the harness.
    pub fn create(&self) -> Outcome {
        if let Self::S3 { client, name } = self {
            block_on(client.create_bucket().bucket(name).send())?;
        }
        Ok(())
    }
}

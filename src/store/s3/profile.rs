//! The profile of the AWS configuration files: whether the one that was named is there, and the credentials that it gives.
//!
//! Reads `~/.aws/config` and `~/.aws/credentials` (or what AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name) anew each
//! time: other programs renew keys in them. Invariant: a profile that is named and is not there, or that names what is not
//! there, never makes way for another identity.

use std::error::Error as _;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_s3::config::Region;
use aws_types::os_shim_internal::{Env, Fs};

use super::connect::ConnectError;
use super::credentials::cause_of;

/// The profile that is in force where none is named; it need not be there.
const DEFAULT: &str = "default";

/// The profile that somebody names: the option, else the environment.
fn named(option: Option<&str>, env: &Env) -> Option<String> {
    let profile = option.map(str::to_owned).or_else(|| env.get("AWS_PROFILE").ok().filter(|name| !name.is_empty()));
    profile.filter(|name| name != DEFAULT)
}

/// Whether the files hold this profile. Files that cannot be read or parsed are told by those who use them.
async fn is_there(profile: &str, env: &Env) -> bool {
    match aws_config::profile::load(&Fs::real(), env, &Default::default(), None).await {
        Ok(profiles) => profiles.get_profile(profile).is_some(),
        Err(_) => true,
    }
}

fn missing(profile: &str) -> String {
    format!("profile {profile:?} is in none of the AWS configuration files (~/.aws/config, ~/.aws/credentials)")
}

/// Makes sure that the profile that somebody names is there.
///
/// # Errors
/// [`ConnectError::Usage`]: it is not.
pub(super) async fn check_profile(option: Option<&str>) -> Result<(), ConnectError> {
    check_in(option, &Env::real()).await
}

async fn check_in(option: Option<&str>, env: &Env) -> Result<(), ConnectError> {
    match named(option, env) {
        Some(profile) if !is_there(&profile, env).await => {
            let source = if option.is_some() { "--profile" } else { "AWS_PROFILE" };
            Err(ConnectError::Usage(format!("{}: check {source}", missing(&profile))))
        }
        _ => Ok(()),
    }
}

/// The credentials of a profile as the files have them now.
#[derive(Debug)]
pub(super) struct ProfileCredentials {
    /// What the option says.
    option: Option<String>,
    region: String,
}

impl ProfileCredentials {
    pub(super) fn new(option: Option<&str>, region: &str) -> Self {
        Self { option: option.map(str::to_owned), region: region.to_owned() }
    }

    async fn load(&self) -> provider::Result {
        let env = Env::real();
        if let Some(profile) = named(self.option.as_deref(), &env)
            && !is_there(&profile, &env).await
        {
            // It was there at mount: whoever writes the file anew is not done.
            return Err(CredentialsError::provider_error(missing(&profile)));
        }
        // The SDK's provider, and the configuration that it is made with, read the files once in their lives.
        let region = Region::new(self.region.clone());
        let config = ProviderConfig::without_region().with_region(Some(region));
        let mut provider = ProfileFileCredentialsProvider::builder().configure(&config);
        if let Some(profile) = &self.option {
            provider = provider.profile_name(profile);
        }
        match provider.build().provide_credentials().await {
            // With a cause it is a profile that names what is not there; without one it is a profile that has no credentials.
            Err(error @ CredentialsError::CredentialsNotLoaded(_)) if error.source().is_some() => {
                Err(CredentialsError::invalid_configuration(cause_of(&error)))
            }
            answer => answer,
        }
    }
}

impl ProvideCredentials for ProfileCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_profile_that_is_named_must_be_there() {
        let home = tempfile::tempdir().expect("a folder");
        let path = |name: &str| home.path().join(name).to_string_lossy().into_owned();
        let (config, keys) = (path("config"), path("credentials"));
        std::fs::write(&config, "[profile work]\nregion = eu-west-1\n").expect("a file");
        std::fs::write(&keys, "[home]\naws_access_key_id = K\naws_secret_access_key = S\n").expect("a file");
        let check = async |option: Option<&str>, variable: &str| {
            let variables =
                [("AWS_CONFIG_FILE", &*config), ("AWS_SHARED_CREDENTIALS_FILE", &*keys), ("AWS_PROFILE", variable)];
            check_in(option, &Env::from_slice(&variables)).await.map_err(|error| (error.is_usage(), error.to_string()))
        };
        for named in ["work", "home", "default"] {
            assert_eq!(check(Some(named), "").await, Ok(()), "{named}");
            assert_eq!(check(None, named).await, Ok(()), "{named}");
        }
        assert_eq!(check(None, "").await, Ok(()));
        // The option goes before the variable.
        assert_eq!(check(Some("work"), "none").await, Ok(()));
        let (is_usage, told) = check(Some("wrok"), "work").await.expect_err("nobody has that name");
        assert!(is_usage && told.contains("\"wrok\"") && told.ends_with("check --profile"), "{told}");
        let (is_usage, told) = check(None, "wrok").await.expect_err("nobody has that name");
        assert!(is_usage && told.contains("\"wrok\"") && told.ends_with("check AWS_PROFILE"), "{told}");
        assert!(!told.contains('\n'), "{told}");
    }
}

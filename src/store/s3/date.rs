//! The server's clock at an answer, from its Date header: the answers to PUT and Complete say nothing else of the time.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

use super::answers;

/// Catches the Date of one request's answer.
#[derive(Clone, Debug, Default)]
pub(super) struct AnswerDate(Arc<OnceLock<SystemTime>>);

impl AnswerDate {
    /// The date, once the answer has come.
    pub(super) fn get(&self) -> Option<SystemTime> {
        self.0.get().copied()
    }
}

impl Intercept for AnswerDate {
    fn name(&self) -> &'static str {
        "AnswerDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let header = context.response().headers().get("date");
        let date = header.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        if let Some(date) = date {
            self.0.get_or_init(|| answers::time(&date));
        }
        Ok(())
    }
}

//! Why the chain gave no credentials: what was asked, what it said, and whether asking again may help.

use std::path::Path;

use aws_credential_types::provider::error::CredentialsError;

/// What the chain said instead of giving credentials; found again by the classification of errors.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct NoCredentials {
    pub reason: String,
    /// Whether what gives them only failed for now, and refused nothing.
    pub passes: bool,
}

/// What stands in the details of an error of a service that could not answer. The libraries keep the status and the kind in
/// private types, but write them there.
const PASSING: [&str; 5] =
    ["StatusCode(5", "StatusCode(429", "DispatchFailure(", "TimeoutError(", "IoError("];

impl NoCredentials {
    pub(super) fn because_of(error: &CredentialsError) -> Self {
        let said = in_one_line(&causes(error));
        match error {
            // It says itself what was looked for.
            CredentialsError::CredentialsNotLoaded(_) => Self { reason: said, passes: false },
            _ => {
                let places = places(|name| std::env::var(name).ok()).join(", then ");
                Self { reason: format!("{said} (asked: {places})"), passes: passes(error) }
            }
        }
    }
}

fn passes(error: &CredentialsError) -> bool {
    match error {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => false,
        CredentialsError::ProviderTimedOut(_) => true,
        _ => {
            let details = format!("{error:?}");
            PASSING.iter().any(|part| details.contains(part))
        }
    }
}

/// Where the chain looks in this environment, in its order. The first place that has something decides.
fn places(variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut places = Vec::new();
    if set("AWS_ACCESS_KEY_ID").is_some() {
        places.push("AWS_ACCESS_KEY_ID".to_owned());
    }
    let file = |name: &str, default: &str| {
        set(name).or_else(|| {
            let home = set("HOME")?;
            let file = Path::new(&home).join(".aws").join(default);
            file.exists().then(|| file.display().to_string())
        })
    };
    let files: Vec<_> = [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")]
        .into_iter()
        .filter_map(|(name, default)| file(name, default))
        .collect();
    let profile = set("AWS_PROFILE");
    if profile.is_some() || !files.is_empty() {
        let files = if files.is_empty() { "no file".to_owned() } else { files.join(" and ") };
        places.push(format!("profile {} of {files}", profile.as_deref().unwrap_or("default")));
    }
    if let Some(token) = set("AWS_WEB_IDENTITY_TOKEN_FILE") {
        let role = set("AWS_ROLE_ARN").unwrap_or_else(|| "without AWS_ROLE_ARN".to_owned());
        places.push(format!("web identity {role} with the token in {token}"));
    }
    let relative =
        set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|uri| format!("http://169.254.170.2{uri}"));
    if let Some(uri) = relative.or_else(|| set("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
        places.push(format!("container credentials at {uri}"));
    }
    if !set("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        let endpoint = set("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let endpoint = endpoint.as_deref().unwrap_or("http://169.254.169.254");
        places.push(format!("instance metadata at {endpoint}"));
    }
    places
}

/// The chain's message without its line breaks, what it repeats, and the whole answer of a server.
fn in_one_line(text: &str) -> String {
    let text = text.split(". Response {").next().unwrap_or(text);
    let text = text.replace("the credential provider was not enabled: ", "");
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    let rest: Vec<_> = lines.collect();
    if rest.is_empty() { first } else { format!("{first} {}", rest.join("; ")) }
}

/// An error with everything that caused it, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many libraries repeat their cause in their own message.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places_with(variables: &[(&str, &str)]) -> String {
        let variable = |name: &str| {
            variables.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned())
        };
        places(variable).join(", then ")
    }

    #[test]
    fn every_place_that_the_environment_names_is_told_in_the_order_of_the_chain() {
        assert_eq!(places_with(&[]), "instance metadata at http://169.254.169.254");
        let all = places_with(&[
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
            ("AWS_PROFILE", "archive"),
            ("AWS_CONFIG_FILE", "/etc/aws"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token"),
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/log"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/1"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://[fd00:ec2::254]"),
        ]);
        assert_eq!(
            all,
            "AWS_ACCESS_KEY_ID, then profile archive of /etc/aws, then web identity \
             arn:aws:iam::123456789012:role/log with the token in /run/token, then container credentials at \
             http://169.254.170.2/v2/credentials/1, then instance metadata at http://[fd00:ec2::254]"
        );
        assert_eq!(
            places_with(&[("AWS_PROFILE", "archive"), ("AWS_EC2_METADATA_DISABLED", "true")]),
            "profile archive of no file"
        );
    }

    #[test]
    fn a_service_that_could_not_answer_is_told_from_one_that_refused() {
        let of =
            |text: &'static str| NoCredentials::because_of(&CredentialsError::provider_error(text)).passes;
        assert!(of("Non-success status from HTTP credential provider: StatusCode(503)"));
        assert!(!of("Non-success status from HTTP credential provider: StatusCode(403)"));
        assert!(passes(&CredentialsError::provider_timed_out(std::time::Duration::from_secs(5))));
        assert!(!passes(&CredentialsError::not_loaded("StatusCode(500)")));
    }

    #[test]
    fn a_message_of_several_lines_becomes_one() {
        let text = "no credentials found in chain. Attempted:\n  Environment: the credential provider was not enabled: \
                    not set\n  EcsContainer: the credential provider was not enabled: not configured";
        assert_eq!(
            in_one_line(text),
            "no credentials found in chain. Attempted: Environment: not set; EcsContainer: not configured"
        );
        assert_eq!(
            in_one_line("error response (code: 500). Response { body: \"x\" }"),
            "error response (code: 500)"
        );
    }
}

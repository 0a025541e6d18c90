//! Names that are too long, or have `/`, `~`, NUL or blanks in them.

use anyhow::Result;
use tonic::Code;

use super::*;

/// A bad name, the same for a URL's path, and what is wrong with it.
fn bad_names() -> [(String, String, &'static str); 8] {
    let name = |name: &str, in_path: &str, wrong| (name.to_owned(), in_path.to_owned(), wrong);
    let long = "x".repeat(250);
    [
        (long.clone(), long, "is 250 bytes long, the limit is 249"),
        name("a/b", "a%2Fb", "contains '/'; allowed are [A-Za-z0-9._-]"),
        name("a~b", "a~b", "contains '~', which belongs to the system"),
        name("a\0b", "a%00b", "contains '\\0'; allowed are"),
        name("a b", "a%20b", "contains ' '; allowed are"),
        name("a\tb", "a%09b", "contains '\\t'; allowed are"),
        name("é", "%C3%A9", "contains 'é'; allowed are"),
        name("..", "%2E%2E", "is reserved"),
    ]
}

#[test]
fn a_bad_stream_name_is_refused_with_its_rule_on_every_interface() -> Result<()> {
    let mut asked = Asked::start()?;
    for (name, in_path, wrong) in bad_names() {
        let named = "stream name ";
        let arguments = ["stream", "create", &name];
        // The system passes no NUL in an argument.
        if !name.contains('\0') {
            Tool::ctl(&asked.node)?.args(arguments).fail(2, &[named, wrong])?;
            let append = Tool::ctl(&asked.node)?.args(["append", name.as_str()]).input("x\n");
            append.fail(2, &[named, wrong, "give a stream's name first"])?;
        }
        let refusal = (400, "invalid_argument");
        // `%2E%2E` is what a client may take for a step up.
        if name != ".." {
            asked.http_refused(("PUT", &format!("/{in_path}")), "", refusal, &[named, wrong])?;
            let body = r#"{"records":[{"value":"x"}]}"#;
            asked.http_refused(("POST", &format!("/{in_path}/records")), body, refusal, &[named, wrong])?;
        }
        let refusal = (Code::InvalidArgument, "invalid_argument");
        asked.grpc_refused(async |log| log.append(append("", &name, "x")).await, refusal, &[named, wrong])?;
    }
    let streams = asked.ctl("stream list --json")?.succeed()?;
    ensure!(streams.is_empty(), "nothing was created: {streams}");
    Ok(())
}

#[test]
fn bad_names_of_tenants_cursors_and_restore_points_are_refused_with_their_rules() -> Result<()> {
    let mut asked = Asked::start()?;
    asked.ctl("append orders")?.input("x\n").succeed()?;
    let ctl = |arguments: &[&str]| -> Result<Tool> { Ok(Tool::ctl(&asked.node)?.args(arguments.to_vec())) };
    let long = "x".repeat(256);
    ctl(&["tenant", "create", "Acme"])?.fail(2, &["tenant name \"Acme\"", "contains 'A'", "[a-z0-9-]"])?;
    ctl(&["tenant", "create", &long])?.fail(2, &["tenant name", "the limit is 63"])?;
    ctl(&["cursor", "commit", "orders", &long, "0"])?.fail(2, &["cursor name", "the limit is 255"])?;
    ctl(&["cursor", "commit", "orders", "a\nb", "0"])?
        .fail(2, &["cursor name", "control character '\\n'"])?;
    ctl(&["restore-point", "create", "a b"])?.fail(2, &["restore point name", "contains ' '"])?;
    // A cursor may have what a stream may not.
    ctl(&["cursor", "commit", "orders", "team a/1", "1"])?.succeed()?;
    let refusal = (400, "invalid_argument");
    let cursor = ("PUT", "/orders/cursors/a%00b");
    asked.http_refused(cursor, r#"{"offset":0}"#, refusal, &["cursor name", "control character '\\0'"])?;
    asked.http_refused(("GET", "/v1/tenants/Acme/streams"), "", refusal, &["tenant name \"Acme\""])?;
    let commit = v1::CommitCursorRequest {
        stream: "orders".to_owned(),
        cursor: long,
        ..v1::CommitCursorRequest::default()
    };
    let refusal = (Code::InvalidArgument, "invalid_argument");
    asked.grpc_refused(async |log| log.commit_cursor(commit).await, refusal, &["cursor name", "255"])?;
    Ok(())
}

#[test]
fn a_bad_branch_name_is_refused_before_anything_is_asked_of_the_archive() -> Result<()> {
    let archive = "file:///nowhere/at/all";
    for (name, wrong) in [("a/b", "contains '/'"), ("Upper", "[a-z0-9-]"), ("holds", "folder of the archive")]
    {
        let branch = Tool::restore(archive)?.args(["branch", name, "--latest"]);
        branch.fail(2, &["branch name", wrong])?;
    }
    let serve = Tool::node()?.args(["serve", "--branch", "a b", "--validate"]);
    serve.fail(2, &["--branch: archive.branch: branch name \"a b\" contains ' '"])?;
    Ok(())
}

#[test]
fn slashes_tildes_blanks_and_nul_are_refused_in_names_of_every_kind() -> Result<()> {
    let mut asked = Asked::start()?;
    asked.ctl("append orders")?.input("x\n").succeed()?;
    for (bad, shown) in [("a/b", "'/'"), ("a~b", "'~'"), ("a b", "' '"), (" ab", "' '"), ("a\0b", "'\\0'")] {
        let wrong = format!("contains {shown}");
        let refusal = (Code::InvalidArgument, "invalid_argument");
        let parts = ["tenant name ", &wrong];
        asked.grpc_refused(async |log| log.append(append(bad, "orders", "x")).await, refusal, &parts)?;
        // The system passes no NUL in an argument.
        if !bad.contains('\0') {
            let ctl =
                |arguments: &[&str]| Ok::<_, anyhow::Error>(Tool::ctl(&asked.node)?.args(arguments.to_vec()));
            ctl(&["tenant", "create", bad])?.fail(2, &parts)?;
            ctl(&["stream", "list", "--tenant", bad])?.fail(2, &parts)?;
            ctl(&["restore-point", "create", bad])?.fail(2, &["restore point name ", &wrong])?;
            let branch = asked.restore("branch --latest")?.args([bad]);
            branch.fail(2, &["branch name ", &wrong])?;
        }
    }
    let from = v1::read_request::From::Cursor("a\0b".to_owned());
    let refusal = (Code::InvalidArgument, "invalid_argument");
    let parts = ["cursor name ", "control character '\\0'"];
    asked.grpc_refused(async |log| log.read(read("orders", from)).await, refusal, &parts)?;
    let listed = asked.ctl("tenant list --json")?.succeed()?;
    ensure!(listed.lines().count() == 1, "no tenant was created: {listed}");
    Ok(())
}

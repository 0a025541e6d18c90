use prost::Message as _;

use crate::{ErrorCode, FILE_DESCRIPTOR_SET, error_of, status_of, v1};

#[test]
fn an_error_survives_its_way_through_a_status() {
    for &code in ErrorCode::ALL {
        let error = v1::Error { tail: Some(42), ..v1::Error::from_code(code, "what happened. What to do.") };
        let status = status_of(&error);
        assert_eq!(status.code(), code.grpc());
        assert_eq!(error_of(&status), Some(error));
        assert_eq!(code.as_str().parse(), Ok(code));
    }
}

#[test]
fn a_status_of_something_else_carries_no_error() {
    assert_eq!(error_of(&tonic::Status::unavailable("connection refused")), None);
    let garbage = tonic::Status::with_details(tonic::Code::Internal, "x", vec![0xff; 7].into());
    assert_eq!(error_of(&garbage), None);
}

#[test]
fn the_documented_table_of_codes_is_the_list() {
    let table = include_str!("../proto/duramen/v1/error.proto");
    for &code in ErrorCode::ALL {
        let grpc = format!("{:?}", code.grpc());
        let row = table.lines().find(|line| line.split_whitespace().nth(1) == Some(code.as_str()));
        let found = row.and_then(|row| row.split_whitespace().nth(2)).map(|name| name.replace('_', ""));
        assert_eq!(found, Some(grpc.to_uppercase()), "row of {code}");
    }
    let rows = table.lines().filter(|line| line.starts_with("//   ")).count();
    assert_eq!(rows, ErrorCode::ALL.len() + 1, "a row for each code, and the heading");
}

/// Every message, field, enum value and call carries a comment.
#[test]
fn everything_in_the_interface_is_documented() {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let ours: Vec<_> = set.file.iter().filter(|file| file.package() == "duramen.v1").collect();
    assert_eq!(ours.len(), 3);
    for file in ours {
        let documented: std::collections::BTreeSet<Vec<i32>> = file
            .source_code_info
            .iter()
            .flat_map(|info| &info.location)
            .filter(|location| !location.leading_comments().trim().is_empty())
            .map(|location| location.path.clone())
            .collect();
        let mut paths = Vec::new();
        let number = |n: usize| i32::try_from(n).unwrap();
        for (i, message) in file.message_type.iter().enumerate() {
            paths.push((message.name(), vec![4, number(i)]));
            for (j, field) in message.field.iter().enumerate() {
                paths.push((field.name(), vec![4, number(i), 2, number(j)]));
            }
        }
        for (i, enumeration) in file.enum_type.iter().enumerate() {
            paths.push((enumeration.name(), vec![5, number(i)]));
            for (j, value) in enumeration.value.iter().enumerate() {
                paths.push((value.name(), vec![5, number(i), 2, number(j)]));
            }
        }
        for (i, service) in file.service.iter().enumerate() {
            paths.push((service.name(), vec![6, number(i)]));
            for (j, method) in service.method.iter().enumerate() {
                paths.push((method.name(), vec![6, number(i), 2, number(j)]));
            }
        }
        for (name, path) in paths {
            assert!(documented.contains(&path), "{name} in {} has no comment", file.name());
        }
    }
}

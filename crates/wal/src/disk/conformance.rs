//! One suite that every disk must pass.

use std::io::ErrorKind;
use std::path::Path;

use super::{Disk, RealDisk};
use crate::durable;
use crate::sim::SimDisk;

#[test]
fn the_real_disk_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&RealDisk::new(), dir.path());
}

#[test]
fn the_simulated_disk_conforms() {
    conforms(&SimDisk::new(1), Path::new("/sim"));
}

fn conforms(disk: &dyn Disk, root: &Path) {
    let dir = root.join("a/b");
    disk.create_dir(&dir).unwrap();
    disk.create_dir(&dir).expect("creating it again is fine");
    assert_eq!(disk.list(&dir).unwrap(), Vec::<String>::new());
    assert_eq!(disk.list(&root.join("absent")).unwrap_err().kind(), ErrorKind::NotFound);

    let (one, two) = (dir.join("one"), dir.join("two"));
    assert_eq!(disk.open(&one).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.create(&root.join("absent/x")).unwrap_err().kind(), ErrorKind::NotFound);
    let file = disk.create(&one).unwrap();
    assert_eq!(disk.create(&one).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(file.is_empty().unwrap());
    file.write_all_at(b"tail", 6).unwrap();
    assert_eq!(file.len().unwrap(), 10);
    let mut read = [9; 10];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"\0\0\0\0\0\0tail", "a hole reads as zeros");
    assert_eq!(file.read_exact_at(&mut read, 1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    file.set_len(8).unwrap();
    file.set_len(9).unwrap();
    let mut read = [9; 3];
    file.read_exact_at(&mut read, 6).unwrap();
    assert_eq!(&read, b"ta\0", "what was cut off does not come back");
    file.sync_data().unwrap();
    assert!(disk.open_read(&one).unwrap().write_all_at(b"x", 0).is_err(), "a reader can't write");

    disk.create(&two).unwrap();
    assert_eq!(disk.list(&dir).unwrap(), ["one", "two"]);
    disk.rename(&one, &two).unwrap();
    assert_eq!(disk.list(&dir).unwrap(), ["two"]);
    assert_eq!(disk.open(&two).unwrap().len().unwrap(), 9);
    disk.sync_dir(&dir).unwrap();
    disk.remove(&two).unwrap();
    assert_eq!(disk.remove(&two).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.rename(&two, &one).unwrap_err().kind(), ErrorKind::NotFound);
    file.read_exact_at(&mut read, 6).expect("a pinned file outlives its name");
    assert_eq!(&read, b"ta\0");
    assert!(disk.available(&dir).unwrap() > 0);

    let lock = disk.lock(&one).unwrap();
    assert_eq!(disk.lock(&one).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(lock);
    drop(disk.lock(&one).unwrap());

    durable::write_file(disk, &two, b"first").unwrap();
    durable::write_file(disk, &two, b"second").unwrap();
    assert_eq!(durable::read_file(disk, &two, 6).unwrap(), b"second");
    assert_eq!(durable::read_file(disk, &two, 5).unwrap_err().kind(), ErrorKind::InvalidData);
    durable::remove_file(disk, &two).unwrap();
    durable::remove_file(disk, &two).expect("removing what isn't there is fine");
}

#[test]
fn a_power_cut_at_any_step_of_write_file_leaves_the_old_or_the_new_content() {
    let path = Path::new("/sim/file");
    for seed in 0..20 {
        for step in 1.. {
            let disk = SimDisk::new(seed);
            disk.create_dir(Path::new("/sim")).unwrap();
            durable::write_file(&disk, path, &[1; 3000]).unwrap();
            let before = disk.operations();
            disk.fail_power_at(before + step);
            let written = durable::write_file(&disk, path, &[2; 4000]);
            disk.power_cut();
            let found = durable::read_file(&disk, path, 10_000).unwrap();
            if written.is_ok() {
                assert!(found == [2; 4000]);
                break;
            }
            assert!(found == [1; 3000] || found == [2; 4000], "seed {seed}, step {step}");
        }
    }
}

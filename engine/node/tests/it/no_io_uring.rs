//! A machine that forbids io_uring, as container runtimes do: a filter makes the kernel refuse the call to this one
//! process.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;

use crate::support::{contents, directories, pontoond, run};

/// Makes `io_uring_setup` fail with EPERM in the calling process and its children.
fn forbid_io_uring() -> std::io::Result<()> {
    const LOAD_CALL_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: u8::from(code == JUMP_IF_EQUAL), k };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut program = [
        step(LOAD_CALL_NUMBER, 0, 0),
        step(JUMP_IF_EQUAL, 0, libc::SYS_io_uring_setup as u32),
        step(RETURN, 0, refuse),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program outlives the calls, which copy it; both calls only change the calling process.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
    };
    if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn is_one_line_that_says_what_to_do_and_changes_nothing() {
    let directories = directories(1, 1, 1);
    let before = contents(directories.dir(0));
    let mut command = pontoond(&["--data-dir", directories.dir(0).to_str().unwrap()]);
    // SAFETY: between fork and exec the closure makes two system calls and touches only its own stack.
    unsafe { command.pre_exec(forbid_io_uring) };
    let (code, stderr) = run(&mut command);
    assert_eq!(code, 3, "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("io_uring"), "{stderr}");
    assert_eq!(contents(directories.dir(0)), before);
}

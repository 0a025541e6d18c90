use super::*;
use crate::config::Listen;

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    for (listen, flag) in [
        (
            Listen { clients: address, admin: free, ..Listen::default() },
            "choose another address with --listen",
        ),
        (Listen { clients: free, admin: address, ..Listen::default() }, "--admin-listen"),
    ] {
        let message = Listeners::bind(&listen).await.unwrap_err().to_string();
        assert!(message.contains(&address.to_string()) && message.contains("is in use"), "{message}");
        assert!(message.contains(flag), "{message}");
    }
}

#[tokio::test]
async fn port_zero_takes_a_free_port_and_says_which() {
    let free = "127.0.0.1:0".parse().unwrap();
    let listeners =
        Listeners::bind(&Listen { clients: free, admin: free, ..Listen::default() }).await.unwrap();
    assert_ne!(listeners.clients().port(), 0);
    assert_ne!(listeners.clients(), listeners.admin());
}

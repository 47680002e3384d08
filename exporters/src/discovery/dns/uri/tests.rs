//! Targets as gRPC's naming document has them.

use super::*;

#[test]
fn a_target_names_a_host_a_port_and_perhaps_a_server() {
    let dns = |target: &str| Dns::of_target(target).expect(target);
    assert_eq!(dns("dns:///collector:4318"), Dns::of("collector", 4318));
    assert_eq!(dns("dns:collector"), Dns::of("collector", 4317));
    assert_eq!(dns("dns:///collector.example.com.:1"), Dns::of("collector.example.com.", 1));
    assert_eq!(dns("dns:///[::1]:5"), Dns::of("::1", 5));
    let by_server = dns("dns://10.0.0.2/collector");
    assert_eq!(by_server.server, Some("10.0.0.2:53".parse().expect("an address")));
    let by_server = dns("dns://[::1]:5353/collector");
    assert_eq!(by_server.server, Some("[::1]:5353".parse().expect("an address")));
    for bad in ["collector:1", "dns://collector:1", "dns:///", "dns:///a:b", "dns://ns/a:1"] {
        let said = Dns::of_target(bad).expect_err(bad).to_string();
        assert!(said.contains("dns:///host:port"), "{said}");
    }
}

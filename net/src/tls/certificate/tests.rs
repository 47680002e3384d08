//! Certificates by rcgen in, facts out; and what is no certificate any more.

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DnType, DnValue, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber, date_time_ymd,
};

use super::{Certificate, RevocationList, read, read_list};
use crate::ring::fake::Dice;

fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    change(&mut params);
    let key = KeyPair::generate().expect("keys can be made");
    params.self_signed(&key).expect("it can be signed").der().to_vec()
}

fn full() -> Vec<u8> {
    made(|params| {
        let text = |text: &str| Ia5String::try_from(text).expect("plain text");
        params.subject_alt_names = vec![
            SanType::DnsName(text("a.test")),
            SanType::IpAddress([192, 0, 2, 1].into()),
            SanType::URI(text("spiffe://a/b")),
            SanType::Rfc822Name(text("a@b.test")),
        ];
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "a=b;\u{e9} ");
        name.push(DnType::OrganizationalUnitName, DnValue::BmpString("x".try_into().unwrap()));
        name.push(DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]), "m@b.test");
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1], vec![5, 0])];
        params.not_after = date_time_ymd(2031, 2, 28);
    })
}

#[test]
fn names_subject_and_end_are_what_the_certificate_was_made_with() {
    let expected = Certificate {
        subject: "1.2.840.113549.1.9.1=#0c086d40622e74657374,OU=#1e020078,CN=a=b\\;\u{e9}\\ "
            .into(),
        dns_names: vec!["a.test".into()],
        uris: vec!["spiffe://a/b".into()],
        not_after: 1_930_003_200,
    };
    assert_eq!(read(&full()), Some(expected));
}

#[test]
fn the_end_of_a_certificate_is_right_on_every_kind_of_day() {
    for (year, month, day) in
        [(1999, 12, 31), (2000, 2, 29), (2024, 3, 1), (2049, 12, 31), (2050, 1, 1), (2400, 2, 29)]
    {
        let date = date_time_ymd(year, month, day);
        let certificate = read(&made(|params| params.not_after = date)).expect("a certificate");
        assert_eq!(certificate.not_after, date.unix_timestamp(), "{year}-{month}-{day}");
    }
}

#[test]
fn a_damaged_certificate_is_read_or_not_but_never_past_its_end() {
    let whole = full();
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length]), None, "cut off at {length}");
    }
    for seed in 0..20_000 {
        let mut dice = Dice::new(seed);
        let mut damaged = whole.clone();
        for _ in 0..1 + dice.below(4) {
            let place = dice.below(damaged.len() as u64) as usize;
            damaged[place] = dice.number() as u8;
        }
        let read = std::panic::catch_unwind(|| read(&damaged));
        assert!(read.is_ok(), "seed {seed}");
    }
}

#[test]
fn a_revocation_list_says_whose_it_is_and_when_the_next_is_due() {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "ours");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("keys can be made");
    let issuer = CertifiedIssuer::self_signed(params, key).expect("it can be signed");
    for next_update in [date_time_ymd(2031, 2, 28), date_time_ymd(2055, 1, 1)] {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let der = list.signed_by(&issuer).expect("it can be signed").der().to_vec();
        let next_update = next_update.unix_timestamp();
        let expected = RevocationList { issuer: "CN=ours".to_owned(), next_update };
        assert_eq!(read_list(&der), Some(expected));
        assert!((0..der.len()).all(|end| read_list(&der[..end]).is_none()), "cut off");
    }
    assert_eq!(read_list(&full()), None);
}

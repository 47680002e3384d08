//! The protocol cores without a socket.

mod call;
mod caller;
mod client;
mod client_oracle;
mod client_rules;
mod desk;
mod floods;
mod flow;
mod frames;
mod http1;
mod http2;
mod http3;
mod http3_leaving;
mod http3_rules;
mod leaving;
mod messages;
mod oracle;
mod pipe;
mod rules;
mod slow;
mod streams;

//! One file for each subcommand, and how they reach a cluster.

pub mod init;
pub mod keys;
pub mod members;
pub mod recover;
pub mod sim;
pub mod status;
pub mod wal;

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::Args;
use pontoon_client::{Client, ClientOptions};

use crate::failure::Failure;

/// Where the cluster is.
#[derive(Args)]
pub struct Cluster {
    /// Nodes to ask first, as HOST:PORT separated by commas; the others are learned from them.
    #[arg(
        long,
        short = 'e',
        env = "PONTOON_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403,127.0.0.1:7400"
    )]
    endpoints: Vec<String>,

    /// How long a request may take, in milliseconds.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout_ms: u64,
}

impl Cluster {
    /// A client of the cluster.
    pub fn connect(&self) -> Result<Client, Failure> {
        self.connect_with(ClientOptions::default())
    }

    /// One that lets a node work at a request for longer: an order is answered when it is done.
    pub fn connect_for_orders(&self) -> Result<Client, Failure> {
        let attempt_timeout = Duration::from_millis(self.timeout_ms / 2);
        self.connect_with(ClientOptions { attempt_timeout, ..ClientOptions::default() })
    }

    fn connect_with(&self, options: ClientOptions) -> Result<Client, Failure> {
        let mut endpoints: Vec<SocketAddr> = Vec::new();
        for endpoint in &self.endpoints {
            let addresses = endpoint
                .to_socket_addrs()
                .map_err(|error| Failure::usage(format!("endpoint {endpoint}: {error}; write it as HOST:PORT")))?;
            endpoints.extend(addresses);
        }
        let timeout = Duration::from_millis(self.timeout_ms);
        let options = ClientOptions { timeout, connect_timeout: timeout, ..options };
        Ok(Client::connect(&endpoints, options)?)
    }
}

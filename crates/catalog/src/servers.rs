//! Join tokens, nodes and layouts.

use crate::tx::{Step, Tx};
use crate::{key, layout};
use model::cluster::{Device, Node, NodeState, ServerRole, Token};
use model::command::{Genesis, Outcome};
use model::layout::{DeviceInfo, LayoutChange};
use model::{AccountId, DeviceId, Epoch, Error, Hash, Layout, NodeId, Policy, TokenId};
use std::collections::{BTreeMap, BTreeSet};

/// Most devices of a node.
const DEVICES_MAX: usize = 64;

impl Tx<'_> {
    pub(crate) fn create_token(&mut self, by: Option<AccountId>, token: &Token) -> Step<Outcome> {
        let admin = self.admin(by)?;
        if token.used || self.has(&key::token(token.id))? {
            return Err(Error::invalid("a join token that cannot be").into());
        }
        let mut about = String::new();
        if let Some(node) = token.replace {
            let name = self.get::<Node>(&key::node(node))?.ok_or_else(|| Error::not_found(format!("there is no node {node}")))?.name;
            about = format!(", to replace {name}");
        }
        self.put(&key::token(token.id), token)?;
        self.end_at(token.expires_ms.saturating_add(crate::REQUEST_LIFE_MS), crate::expiry::TOKEN, &token.id.0)?;
        self.event("token-created", None, format!("{} made a join token{about}", admin.name))?;
        Ok(Outcome::Done)
    }

    pub(crate) fn consume_token(&mut self, id: TokenId, role: ServerRole, key: Hash) -> Step<Outcome> {
        let denied = || Error::denied("this join token is not valid: it was used, has expired, or is not for this role");
        let token = self.get::<Token>(&key::token(id))?.filter(|t| !t.used && t.role == role && t.expires_ms > self.now);
        let token = token.ok_or_else(denied)?;
        // Used up, and its secret with it.
        self.put(&key::token(id), &Token { used: true, secret: [0; 32], ..token.clone() })?;
        if role == ServerRole::Coordinator {
            return self.join_coordinator(key);
        }
        let node = NodeId(self.counters.next_node);
        self.counters.next_node += 1;
        let row = Node {
            id: node,
            name: format!("node-{node}"),
            address: String::new(),
            zone: String::new(),
            devices: Vec::new(),
            state: NodeState::Joining,
            key,
            version: String::new(),
            draining: false,
            leaving: false,
        };
        self.put(&key::node(node), &row)?;
        if let Some(old) = token.replace {
            self.put(&key::heir(node), &old)?;
        }
        self.event("node-joined", Some(node), row.name)?;
        Ok(Outcome::Joined { node: Some(node), coordinator: None })
    }

    pub(crate) fn update_node(&mut self, id: NodeId, address: &str, zone: &str, devices: &[Device], version: &str) -> Step<Outcome> {
        let mut node: Node = self.get(&key::node(id))?.ok_or_else(|| Error::not_found(format!("there is no node {id}")))?;
        if devices.len() > DEVICES_MAX || address.len() > 256 || zone.len() > 64 || version.len() > 64 {
            return Err(Error::invalid("a node with impossible fields").into());
        }
        if devices.iter().map(|d| d.id).collect::<BTreeSet<_>>().len() < devices.len() {
            return Err(Error::invalid("a node with one device twice").into());
        }
        for other in self.rows::<Node>(&key::nodes())?.iter().filter(|n| n.id != id) {
            if other.devices.iter().any(|d| devices.iter().any(|mine| mine.id == d.id)) {
                return Err(Error::conflict(format!("a device of {} is one of {} already", node.name, other.name)).into());
            }
        }
        node.address = address.into();
        node.zone = zone.into();
        node.devices = devices.to_vec();
        node.version = version.into();
        self.put(&key::node(id), &node)?;
        if !devices.is_empty()
            && let Some(old) = self.get::<NodeId>(&key::heir(id))?
        {
            self.inherit(old, &mut node)?;
        }
        Ok(Outcome::Done)
    }

    /// A new node takes over the slots of one that it replaces; nothing else moves. The slots' devices
    /// are others now, so each current layout gets its next epoch; the layouts of a change under way go
    /// on meaning the same places.
    fn inherit(&mut self, old: NodeId, heir: &mut Node) -> Step<()> {
        self.delete(&key::heir(heir.id))?;
        // Devices are never empty here. With fewer disks than before, one fills several places: never
        // two of the same chunk, which no node holds.
        let mut mine = heir.devices.iter().cycle();
        let mut takes: BTreeMap<DeviceId, DeviceInfo> = BTreeMap::new();
        let mut take = |layout: &mut Layout| {
            let mut taken = false;
            for device in layout.devices.iter_mut().filter(|d| d.node == old) {
                let fresh = || mine.next().map(|new| device_info(heir, new));
                let Some(new) = takes.get(&device.device).cloned().or_else(fresh) else { break };
                takes.insert(device.device, new.clone());
                *device = new;
                taken = true;
            }
            taken
        };
        let mut layouts: Vec<Layout> = self.rows(&key::layouts())?;
        layouts.retain_mut(&mut take);
        for mut layout in layouts.iter().cloned() {
            layout.epoch = Epoch(layout.epoch.0 + 1);
            self.put(&key::layout(layout.width), &layout)?;
            for mut earlier in self.rows::<Layout>(&key::earlier_layouts_of(layout.width))? {
                take(&mut earlier);
                self.put(&key::earlier_layout(earlier.width, earlier.epoch), &earlier)?;
            }
            if let Some(change) = self.get::<LayoutChange>(&key::change(layout.width))? {
                self.put(&key::change(layout.width), &LayoutChange { to: layout.epoch, ..change })?;
            }
        }
        if !layouts.is_empty() {
            heir.state = NodeState::Up;
        }
        self.put(&key::node(heir.id), heir)?;
        self.event("node-replaced", Some(heir.id), format!("{} takes over the slots of node-{old}", heir.name))?;
        // No layout names it any more. Were it kept, somebody would add it again.
        match self.get::<Node>(&key::node(old))? {
            Some(gone) => self.forget_node(&gone),
            None => Ok(()),
        }
    }

    pub(crate) fn set_node_state(&mut self, id: NodeId, state: NodeState) -> Step<Outcome> {
        let mut node: Node = self.get(&key::node(id))?.ok_or_else(|| Error::not_found(format!("there is no node {id}")))?;
        if node.state != state {
            let what = format!("node-{}", word(state));
            node.state = state;
            self.put(&key::node(id), &node)?;
            self.event(&what, Some(id), node.name)?;
        }
        Ok(Outcome::Done)
    }

    pub(crate) fn make_layout(&mut self, width: u8) -> Step<Outcome> {
        if width == 0 || width > Policy::MAX_WIDTH {
            return Err(Error::invalid("no policy has this width").into());
        }
        if let Some(layout) = self.get::<Layout>(&key::layout(width))? {
            return Ok(Outcome::Layout(layout.epoch));
        }
        let genesis: Genesis = self.must(&key::genesis())?;
        let nodes: Vec<Node> = self.rows(&key::nodes())?;
        // The first layout takes all that have joined. A further one takes those that hold the others:
        // who joined since is for an operator to add.
        let members = self.layout_members()?;
        let present = nodes.iter().filter(|n| is_usable(n) && (members.is_empty() || members.contains(&n.id)));
        let devices: Vec<DeviceInfo> = present.flat_map(devices_of).collect();
        let layout = layout::plan(None, Epoch(1), genesis.power, width, &devices).map_err(|e| {
            let waiting = nodes.iter().any(|n| n.state == NodeState::Joining && is_usable(n) && !members.is_empty());
            if waiting { e.hint("shardkeep cluster add") } else { e }
        })?;
        self.put(&key::layout(width), &layout)?;
        for mut node in nodes {
            if node.state == NodeState::Joining && layout.devices.iter().any(|d| d.node == node.id) {
                node.state = NodeState::Up;
                self.put(&key::node(node.id), &node)?;
            }
        }
        self.event("layout-made", None, format!("epoch {} of width {width} over {} devices", layout.epoch, layout.devices.len()))?;
        Ok(Outcome::Layout(layout.epoch))
    }
}

/// Whether layouts may be planned over a node.
fn is_usable(node: &Node) -> bool {
    !node.devices.is_empty() && !node.draining && !node.leaving && !matches!(node.state, NodeState::Out | NodeState::Draining)
}

fn devices_of(node: &Node) -> impl Iterator<Item = DeviceInfo> {
    node.devices.iter().map(|d| device_info(node, d))
}

fn device_info(node: &Node, device: &Device) -> DeviceInfo {
    DeviceInfo { device: device.id, node: node.id, zone: node.zone.clone(), capacity: device.capacity }
}

fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Joining => "joining",
        NodeState::Up => "up",
        NodeState::Suspect => "suspect",
        NodeState::Down => "down",
        NodeState::Out => "out",
        NodeState::Draining => "draining",
    }
}

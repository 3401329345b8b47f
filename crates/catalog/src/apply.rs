//! From a proposal to its outcome: idempotence, log time, and the list of all commands.

use crate::kv::KvMut;
use crate::row::Answered;
use crate::tx::{Step, Stop, Tx};
use crate::{REQUEST_LIFE_MS, key};
use model::command::{Applied, Command, Genesis, Outcome, Proposal};
use model::{Error, Result};

/// Applies a proposal: all of it or nothing. Applied again under the same request id, it changes
/// nothing and answers the same, for 24 h of log time; after that the id is refused.
///
/// The outer error means that the store failed: this replica must stop. The inner one is the
/// command's answer, the same on every replica.
pub fn apply(kv: &mut dyn KvMut, proposal: &Proposal) -> Result<Applied> {
    match run(kv, proposal) {
        Ok(applied) => Ok(applied),
        Err(Stop::Refused(e) | Stop::Failed(e)) => Err(e),
    }
}

fn run(kv: &mut dyn KvMut, proposal: &Proposal) -> Step<Applied> {
    let mut tx = Tx::begin(kv, proposal.time_ms)?;
    // The proposer's time may be wrong in either direction; the id's may be too.
    if proposal.request.time_ms().saturating_add(REQUEST_LIFE_MS) < tx.now
        || proposal.request.time_ms() > tx.now.saturating_add(REQUEST_LIFE_MS)
    {
        tx.finish()?;
        return Ok(Err(Error::invalid("this request was issued more than a day ago, or by a clock that is wrong by more than a day")
            .hint("set this machine's clock, then try again")));
    }
    let answered = key::request(proposal.request, proposal.account);
    if let Some(Answered { applied }) = tx.get(&answered)? {
        tx.finish()?;
        return Ok(applied);
    }
    let applied = match command(&mut tx, proposal) {
        Ok(outcome) => Ok(outcome),
        Err(Stop::Refused(e)) => {
            tx.discard()?;
            Err(e)
        }
        Err(failed) => return Err(failed),
    };
    // Ticks and reports may well be applied twice, and there are many.
    if !matches!(proposal.command, Command::Tick | Command::Report { .. }) {
        tx.put(&answered, &Answered { applied: applied.clone() })?;
    }
    tx.finish()?;
    Ok(applied)
}

fn command(tx: &mut Tx, proposal: &Proposal) -> Step<Outcome> {
    let by = proposal.account;
    if !matches!(proposal.command, Command::Init(_)) && !tx.has(&key::genesis())? {
        return Err(Error::unavailable("this cluster is not initialised").into());
    }
    match &proposal.command {
        Command::Init(genesis) => init(tx, genesis),
        Command::CreateInvite(invite) => tx.create_invite(by, invite),
        Command::Register { invite, secret_hash, account, home } => tx.register(*invite, *secret_hash, account, home),
        Command::ReplaceLogin { account, expect_n, login, recovery, proof } => {
            tx.replace_login(by, *account, *expect_n, login, recovery.as_ref(), proof.as_ref())
        }
        Command::PutState { account, state } => tx.put_state(by, *account, state),
        Command::OpenSession { token_hash, account, expires_ms } => tx.open_session(*token_hash, *account, *expires_ms),
        Command::CloseSession { token_hash } => tx.close_session(token_hash),
        Command::CreateToken(token) => tx.create_token(by, token),
        Command::ConsumeToken { token, role, key } => tx.consume_token(*token, *role, *key),
        Command::UpdateNode { node, address, zone, devices, version } => tx.update_node(*node, address, zone, devices, version),
        Command::SetNodeState { node, state } => tx.set_node_state(*node, *state),
        Command::MakeLayout { width } => tx.make_layout(*width),
        Command::Commit { record, changes, grants } => tx.commit(by, record, changes, grants),
        Command::Report { what, node, detail } => {
            tx.event(what, *node, detail.clone())?;
            Ok(Outcome::Done)
        }
        Command::Tick => tx.tick(),
        Command::ChangeLayouts(new) => tx.change_layouts(by, new),
        Command::PauseLayouts(stop) => tx.pause_layouts(by, *stop),
        Command::FinishLayout { width, epoch } => tx.finish_layout(*width, *epoch),
        Command::RemoveNode(node) => tx.remove_node(by, *node),
        Command::RequestScrub => tx.request_scrub(by),
        Command::Thaw => tx.thaw(by),
        Command::NoteBackup => tx.note_backup(by),
        Command::Restored { incarnation, coordinator } => tx.restored(*incarnation, coordinator),
        Command::UpdateCoordinator { id, address, version } => tx.update_coordinator(*id, address, version),
        Command::RemoveCoordinator(id) => tx.remove_coordinator(by, *id),
        Command::SetSpacePolicy { space, policy } => tx.set_space_policy(by, *space, *policy),
        Command::SetRetention { space, retention_ms } => tx.set_retention(by, *space, *retention_ms),
        Command::ChangeMembers { space, members, grants, label } => tx.change_members(by, *space, members, grants, label.as_ref()),
        Command::TransferSpace { space, to } => tx.transfer_space(by, *space, *to),
        Command::LeaveSpace { space } => tx.leave_space(by, *space),
        Command::BeginRekey(rekey) => tx.begin_rekey(by, rekey),
        Command::RekeyRows { record, rows } => tx.rekey_rows(by, record, rows),
        Command::SwapRekey { target, door } => tx.swap_rekey(by, *target, door.as_ref()),
        Command::AbandonRekey { target } => tx.abandon_rekey(by, *target),
        Command::DeleteSpace { space } => tx.delete_space(by, *space),
        Command::SetDisabled { account, disabled } => tx.set_disabled(by, *account, *disabled),
        Command::SetQuota { account, quota } => tx.set_quota(by, *account, *quota),
        Command::SendMessage { from, to, message, copy } => tx.send_message(by, *from, *to, message, copy),
        Command::ReadMessages { account, numbers } => tx.read_messages(by, *account, numbers),
        Command::CreateLink(link) => tx.create_link(by, link),
        Command::RevokeLink(id) => tx.revoke_link(by, *id),
        Command::OpenLink { link, auth_hash, token_hash, expires_ms } => tx.open_link(*link, *auth_hash, *token_hash, *expires_ms),
        Command::Recoded { object, from, policy, layout, to } => tx.recoded(*object, *from, *to, *policy, *layout),
    }
}

fn init(tx: &mut Tx, genesis: &Genesis) -> Step<Outcome> {
    if tx.has(&key::genesis())? {
        return Err(Error::exists("this cluster is initialised already").into());
    }
    genesis.policy.check()?;
    if model::account::canonical_name(&genesis.invite.name)? != genesis.invite.name {
        return Err(Error::invalid("the first invite names its account in canonical form").into());
    }
    if genesis.power > model::Layout::MAX_POWER {
        return Err(Error::invalid(format!("the partition power is at most {}", model::Layout::MAX_POWER)).into());
    }
    tx.put(&key::genesis(), genesis)?;
    tx.put(&key::coordinator(genesis.coordinator.id), &genesis.coordinator)?;
    tx.put_invite(&genesis.invite)?;
    tx.counters.next_node = 1;
    tx.counters.last_coordinator = genesis.coordinator.id.0;
    tx.event("cluster-created", None, format!("cluster {} with policy {}", genesis.cluster, genesis.policy))?;
    Ok(Outcome::Done)
}

package main

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegates are all that the library calls back: they report, and give what the flags and commands
// say.
type delegates struct {
	output     *output
	own        string
	ackPayload []byte
	broadcasts memberlist.TransmitLimitedQueue
	// Is set when it is started; the delegates are called before.
	node atomic.Pointer[memberlist.Memberlist]

	lock  sync.Mutex
	meta  []byte
	state []byte
	// Every member there ever was. The library lists only those that are here.
	known map[string]struct{}
}

func newDelegates(settings *settings, output *output) *delegates {
	d := &delegates{
		output:     output,
		own:        settings.config.Name,
		ackPayload: orNil(settings.ackPayload),
		meta:       orNil(settings.meta),
		state:      orNil(settings.state),
		known:      make(map[string]struct{}),
	}
	d.broadcasts.RetransmitMult = settings.config.RetransmitMult
	d.broadcasts.NumNodes = func() int {
		if node := d.node.Load(); node != nil {
			return node.NumMembers()
		}
		return 1
	}
	return d
}

// orNil makes nothing of no text, since the library tells nothing from empty.
func orNil(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}

// configure puts the delegates into a configuration.
func (d *delegates) configure(config *memberlist.Config) *memberlist.Config {
	config.Delegate = d
	config.Events = d
	config.Conflict = d
	config.Merge = d
	config.Ping = d
	return config
}

func (d *delegates) setMeta(meta string) {
	d.lock.Lock()
	defer d.lock.Unlock()
	d.meta = orNil(meta)
}

func (d *delegates) setState(state string) {
	d.lock.Lock()
	defer d.lock.Unlock()
	d.state = orNil(state)
}

func (d *delegates) knownNames() []string {
	d.lock.Lock()
	defer d.lock.Unlock()
	names := make([]string, 0, len(d.known))
	for name := range d.known {
		names = append(names, name)
	}
	return names
}

// ---- Delegate

func (d *delegates) NodeMeta(int) []byte {
	d.lock.Lock()
	defer d.lock.Unlock()
	return d.meta
}

func (d *delegates) NotifyMsg(message []byte) {
	about := fields{"bytes": len(message)}
	about.text("text", message)
	d.output.tell("message", about)
}

func (d *delegates) GetBroadcasts(overhead, limit int) [][]byte {
	return d.broadcasts.GetBroadcasts(overhead, limit)
}

func (d *delegates) LocalState(bool) []byte {
	d.lock.Lock()
	defer d.lock.Unlock()
	return d.state
}

func (d *delegates) MergeRemoteState(state []byte, join bool) {
	about := fields{"bytes": len(state), "join": join}
	about.text("text", state)
	d.output.tell("remote_state", about)
}

// ---- EventDelegate

func (d *delegates) NotifyJoin(node *memberlist.Node) {
	d.lock.Lock()
	d.known[node.Name] = struct{}{}
	d.lock.Unlock()
	// The ready report has said already that this node is there.
	if node.Name != d.own {
		d.output.tell("join", recordFields(lentRecord(node)))
	}
}

// NotifyLeave is told neither that a node left nor that it died; its record knows.
func (d *delegates) NotifyLeave(node *memberlist.Node) {
	d.output.tell("gone", recordFields(lentRecord(node)))
}

func (d *delegates) NotifyUpdate(node *memberlist.Node) {
	d.output.tell("update", recordFields(lentRecord(node)))
}

// ---- ConflictDelegate, MergeDelegate

func (d *delegates) NotifyConflict(existing, other *memberlist.Node) {
	d.output.tell("conflict", fields{
		"name":  existing.Name,
		"addr":  existing.Address(),
		"other": other.Address(),
	})
}

func (d *delegates) NotifyMerge(peers []*memberlist.Node) error {
	members := make([]fields, 0, len(peers))
	for _, peer := range peers {
		about := nodeFields(peer)
		about["state"] = stateName(peer.State)
		members = append(members, about)
	}
	d.output.tell("merge", fields{"members": members})
	return nil
}

// ---- PingDelegate

func (d *delegates) AckPayload() []byte {
	return d.ackPayload
}

func (d *delegates) NotifyPingComplete(other *memberlist.Node, rtt time.Duration, payload []byte) {
	about := fields{"name": other.Name, "addr": other.Address(), "rtt_ms": millis(rtt), "bytes": len(payload)}
	about.text("text", payload)
	d.output.tell("ping_completed", about)
}

func millis(duration time.Duration) float64 {
	return float64(duration) / float64(time.Millisecond)
}

// broadcast is a user message to gossip, which no other one replaces.
type broadcast []byte

func (b broadcast) Invalidates(memberlist.Broadcast) bool { return false }
func (b broadcast) Message() []byte                       { return bytes.Clone(b) }
func (b broadcast) Finished()                             {}
func (b broadcast) UniqueBroadcast()                      {}

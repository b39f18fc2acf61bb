package main

import (
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// news is what the nodes of a fleet told, and when.
type news struct {
	lock sync.Mutex
	// Those that were ended on purpose and have not come back.
	gone        map[string]bool
	deaths      map[string]map[int]time.Time
	falseDeaths int
	// The length that is waited for, and when it came.
	awaited  int
	receipts map[int]time.Time
}

func (n *news) died(observer int, name string) {
	now := time.Now()
	n.lock.Lock()
	defer n.lock.Unlock()
	if !n.gone[name] {
		n.falseDeaths++
		return
	}
	if n.deaths[name] == nil {
		n.deaths[name] = map[int]time.Time{}
	}
	if _, told := n.deaths[name][observer]; !told {
		n.deaths[name][observer] = now
	}
}

func (n *news) received(observer int, length int) {
	now := time.Now()
	n.lock.Lock()
	defer n.lock.Unlock()
	if _, told := n.receipts[observer]; !told && n.awaited == length {
		n.receipts[observer] = now
	}
}

func (n *news) setGone(name string, gone bool) {
	n.lock.Lock()
	defer n.lock.Unlock()
	delete(n.deaths, name)
	n.gone[name] = gone
}

func (n *news) awaitBroadcast(length int) {
	n.lock.Lock()
	defer n.lock.Unlock()
	n.awaited, n.receipts = length, map[int]time.Time{}
}

func (n *news) falseDeathCount() int {
	n.lock.Lock()
	defer n.lock.Unlock()
	return n.falseDeaths
}

func (n *news) receiptCount() int {
	n.lock.Lock()
	defer n.lock.Unlock()
	return len(n.receipts)
}

func (n *news) lastReceipt(began time.Time) *float64 {
	n.lock.Lock()
	defer n.lock.Unlock()
	_, last := ends(n.receipts, began)
	return last
}

// deathsOf tells how many declared this node dead, and when the first and the last of them did.
func (n *news) deathsOf(name string, began time.Time) (int, *float64, *float64) {
	n.lock.Lock()
	defer n.lock.Unlock()
	first, last := ends(n.deaths[name], began)
	return len(n.deaths[name]), first, last
}

// ends are the earliest and the latest of these, in milliseconds.
func ends(times map[int]time.Time, began time.Time) (first, last *float64) {
	for _, at := range times {
		millis := at.Sub(began).Seconds() * 1e3
		if first == nil || millis < *first {
			first = &millis
		}
		if last == nil || millis > *last {
			last = &millis
		}
	}
	return first, last
}

// relay tells what happens to a node, and passes broadcasts on, each once, as the library leaves it to its
// user.
type relay struct {
	number int
	news   *news
	queue  memberlist.TransmitLimitedQueue

	lock sync.Mutex
	node *memberlist.Memberlist
	seen map[string]bool
}

// rumour is a broadcast in the queue.
type rumour []byte

func (rumour) Invalidates(memberlist.Broadcast) bool { return false }
func (r rumour) Message() []byte                     { return r }
func (rumour) Finished()                             {}
func (rumour) UniqueBroadcast()                      {}

// send queues a broadcast, if it is new, and tells whether it was.
func (r *relay) send(message []byte) bool {
	r.lock.Lock()
	isNew := !r.seen[string(message)]
	r.seen[string(message)] = true
	r.lock.Unlock()
	if isNew {
		r.queue.QueueBroadcast(rumour(message))
	}
	return isNew
}

func (r *relay) memberCount() int {
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.node == nil {
		return 1
	}
	return r.node.NumMembers()
}

func (r *relay) NotifyMsg(message []byte) {
	// The library uses its buffer again.
	if r.send(append([]byte{}, message...)) {
		r.news.received(r.number, len(message))
	}
}

func (r *relay) NotifyLeave(node *memberlist.Node) {
	if lentRecord(node).State == memberlist.StateDead {
		r.news.died(r.number, node.Name)
	}
}

func (r *relay) GetBroadcasts(overhead, limit int) [][]byte {
	return r.queue.GetBroadcasts(overhead, limit)
}

func (r *relay) NotifyJoin(*memberlist.Node)       {}
func (r *relay) NotifyUpdate(*memberlist.Node)     {}
func (r *relay) NodeMeta(int) []byte               { return nil }
func (r *relay) LocalState(bool) []byte            { return nil }
func (r *relay) MergeRemoteState(_ []byte, _ bool) {}

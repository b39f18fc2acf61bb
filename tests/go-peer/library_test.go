package main

import (
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// The copied record must have the library's layout: what it shows is held to what is known.
func TestRecordsAreReadAsTheLibraryWritesThem(t *testing.T) {
	streams, err := newStreamReader()
	if err != nil {
		t.Fatal(err)
	}
	node := streams.node
	defer func() { _ = node.Shutdown() }()

	before := time.Now().Add(-time.Minute)
	look := func(state memberlist.NodeStateType, incarnation uint32) {
		t.Helper()
		changeNode(node, "decode", func(record *nodeState) {
			if record == nil {
				t.Fatal("no record")
			}
			recent := record.StateChange.After(before) && record.StateChange.Before(time.Now().Add(time.Minute))
			if record.State != state || record.Incarnation != incarnation || !recent {
				t.Errorf("%+v", record)
			}
			if lentRecord(&record.Node) != record {
				t.Error("the node is not the first field of its record")
			}
		})
	}
	look(memberlist.StateAlive, 1)
	if err := node.UpdateNode(time.Second); err != nil {
		t.Fatal(err)
	}
	look(memberlist.StateAlive, 2)
	if err := node.Leave(time.Second); err != nil {
		t.Fatal(err)
	}
	look(memberlist.StateLeft, 2)

	changeNode(node, "nobody", func(record *nodeState) {
		if record != nil {
			t.Errorf("%+v", record)
		}
	})
}

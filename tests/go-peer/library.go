package main

import (
	"io"
	"net"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"
)

// What the library keeps to itself and this program needs: functions by their link names, and the
// structs that they fill. The structs have the fields of memberlist v0.7.0 in their order and with
// their tags, since both are part of the wire format, and the layout is shared with the library.
//
// Limits of the library's own that show in its verdicts: 20 MiB for the user state and for a user
// message in a stream (maxPushStateBytes, maxUserMsgBytes) and for an encrypted stream, 40 MiB for
// what was compressed (maxDecompressedBytes), 1,048,576 node states (maxPushStateNodes).

const (
	pingMsg         = 0
	indirectPingMsg = 1
	ackRespMsg      = 2
	suspectMsg      = 3
	aliveMsg        = 4
	deadMsg         = 5
	pushPullMsg     = 6
	compoundMsg     = 7
	userMsg         = 8
	compressMsg     = 9
	encryptMsg      = 10
	nackRespMsg     = 11
	hasCrcMsg       = 12
	errMsg          = 13
)

type ping struct {
	SeqNo      uint32
	Node       string
	SourceAddr []byte `codec:",omitempty"`
	SourcePort uint16 `codec:",omitempty"`
	SourceNode string `codec:",omitempty"`
}

type indirectPingReq struct {
	SeqNo      uint32
	Target     []byte
	Port       uint16
	Node       string
	Nack       bool
	SourceAddr []byte `codec:",omitempty"`
	SourcePort uint16 `codec:",omitempty"`
	SourceNode string `codec:",omitempty"`
}

type ackResp struct {
	SeqNo   uint32
	Payload []byte
}

type nackResp struct {
	SeqNo uint32
}

type errResp struct {
	Error string
}

type suspect struct {
	Incarnation uint32
	Node        string
	From        string
}

type alive struct {
	Incarnation uint32
	Node        string
	Addr        []byte
	Port        uint16
	Meta        []byte
	Vsn         []uint8
}

type dead struct {
	Incarnation uint32
	Node        string
	From        string
}

type pushNodeState struct {
	Name        string
	Addr        []byte
	Port        uint16
	Meta        []byte
	Incarnation uint32
	State       memberlist.NodeStateType
	Vsn         []uint8
}

// nodeState is the library's record of a node. The nodes that it lends to event delegates and in
// Members are the first field of one.
type nodeState struct {
	memberlist.Node
	Incarnation uint32
	State       memberlist.NodeStateType
	StateChange time.Time
}

//go:linkname decode github.com/hashicorp/memberlist.decode
func decode(buf []byte, out any) error

//go:linkname decodeCompoundMessage github.com/hashicorp/memberlist.decodeCompoundMessage
func decodeCompoundMessage(buf []byte) (trunc int, parts [][]byte, err error)

//go:linkname decompressPayload github.com/hashicorp/memberlist.decompressPayload
func decompressPayload(msg []byte) ([]byte, error)

//go:linkname decryptPayload github.com/hashicorp/memberlist.decryptPayload
func decryptPayload(keys [][]byte, msg []byte, data []byte) ([]byte, error)

//go:linkname readStream github.com/hashicorp/memberlist.(*Memberlist).readStream
func readStream(m *memberlist.Memberlist, conn net.Conn, label string) (uint8, io.Reader, *codec.Decoder, error)

//go:linkname readRemoteState github.com/hashicorp/memberlist.(*Memberlist).readRemoteState
func readRemoteState(m *memberlist.Memberlist, from io.Reader, dec *codec.Decoder) (bool, []pushNodeState, []byte, error)

//go:linkname readUserMsg github.com/hashicorp/memberlist.(*Memberlist).readUserMsg
func readUserMsg(m *memberlist.Memberlist, from io.Reader, dec *codec.Decoder) error

// changeNode calls f with the record of a node, nil if there is none, under the library's lock.
//
//go:linkname changeNode github.com/hashicorp/memberlist.(*Memberlist).changeNode
func changeNode(m *memberlist.Memberlist, name string, f func(*nodeState))

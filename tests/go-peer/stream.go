package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"
)

// streamReader reads what comes over a connection by the library's own methods, which want a node:
// one without keys, sockets and background work.
type streamReader struct {
	node     *memberlist.Memberlist
	messages lastMessage
}

func newStreamReader() (*streamReader, error) {
	s := &streamReader{}
	network := &memberlist.MockNetwork{}
	config := memberlist.DefaultLANConfig()
	config.Name = "decode"
	config.Transport = network.NewTransport(config.Name)
	// readRemoteState puts this in place of a port of 0, which is to be shown as it is.
	config.BindPort = 0
	config.ProbeInterval, config.GossipInterval, config.PushPullInterval = 0, 0, 0
	config.LogOutput = io.Discard
	config.Delegate = &s.messages
	var err error
	s.node, err = memberlist.Create(config)
	return s, err
}

// read takes one framed message as handleConn does, or as who dialled reads the answer.
func (s *streamReader) read(buf []byte) leaf {
	conn := &bytesConn{left: bytes.NewReader(buf)}
	var (
		kind uint8
		from io.Reader
		dec  *codec.Decoder
	)
	err := guarded(func() (err error) {
		kind, from, dec, err = readStream(s.node, conn, "")
		return err
	})
	if err != nil {
		return failed(frame(buf), err)
	}
	leaf, err := s.message(kind, from, dec)
	// A compressed message is in a buffer of its own, and nothing is known of the connection.
	if from, ok := from.(*bufio.Reader); ok && err == nil {
		leaf = leaf.field("used", len(buf)-conn.left.Len()-from.Buffered())
	}
	return leaf
}

// frame names the layer that readStream fails in.
func frame(buf []byte) string {
	switch {
	case len(buf) == 0:
		return "empty"
	case buf[0] == encryptMsg:
		return "encrypt"
	default:
		return "compress"
	}
}

func (s *streamReader) message(kind uint8, from io.Reader, dec *codec.Decoder) (leaf, error) {
	message := func(name string, message any) (leaf, error) {
		if err := guarded(func() error { return dec.Decode(message) }); err != nil {
			return failed(name, err), err
		}
		return newLeaf(name).fields(message), nil
	}
	switch kind {
	case pingMsg:
		return message("ping", &ping{})
	case ackRespMsg:
		return message("ack", &ackResp{})
	case errMsg:
		return message("error", &errResp{})
	case pushPullMsg:
		return s.pushPull(from, dec)
	case userMsg:
		// The delegate is not told of an empty one.
		s.messages.payload = []byte{}
		err := guarded(func() error { return readUserMsg(s.node, from, dec) })
		if err != nil {
			return failed("user", err), err
		}
		return userLeaf(s.messages.payload), nil
	default:
		return unknown(kind), errors.New("unknown type")
	}
}

func (s *streamReader) pushPull(from io.Reader, dec *codec.Decoder) (leaf, error) {
	var state struct {
		Join      bool
		Nodes     []pushNodeState
		UserState []byte
	}
	err := guarded(func() (err error) {
		state.Join, state.Nodes, state.UserState, err = readRemoteState(s.node, from, dec)
		return err
	})
	if err != nil {
		return failed("push_pull", err), err
	}
	return newLeaf("push_pull").fields(&state), nil
}

// bytesConn is a connection whose other side has sent some bytes and closed it.
type bytesConn struct {
	net.Conn
	left *bytes.Reader
}

func (c *bytesConn) Read(into []byte) (int, error) {
	return c.left.Read(into)
}

// lastMessage is a delegate that keeps the message it was given last.
type lastMessage struct {
	payload []byte
}

func (l *lastMessage) NotifyMsg(payload []byte)        { l.payload = payload }
func (l *lastMessage) NodeMeta(int) []byte             { return nil }
func (l *lastMessage) GetBroadcasts(int, int) [][]byte { return nil }
func (l *lastMessage) LocalState(bool) []byte          { return nil }
func (l *lastMessage) MergeRemoteState([]byte, bool)   {}

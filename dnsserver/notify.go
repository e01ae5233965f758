package dnsserver

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"haslohas.com/elbow/pool"
)

const (
	// A secondary gets one message about a zone in notifyInterval, in the long
	// run; notifyBurst of them at once after a rest, as what happens to a backend is
	// often more than one change. What changes meanwhile is told by the next one.
	notifyInterval = time.Second
	notifyBurst    = 5

	// A message without a good answer is sent again after this, and after longer
	// each time.
	notifyRetryFirst = time.Second
	notifyRetryMost  = time.Minute

	notifyPatience = 3 * time.Second // for an answer

	// notifiesPerSecondary is to how many messages at the same time a secondary
	// may owe an answer. One that is gone holds up no other.
	notifiesPerSecondary = 16
)

// What has become of a message, for the metrics.
const (
	notifyAcknowledged = iota
	notifyUnanswered
	notifyRejected // the secondary says that it does not want to know
	notifyFailed   // the message could not be sent
	notifyResults
)

var notifyResultNames = [notifyResults]string{"acknowledged", "unanswered", "rejected", "failed"}

// A notifier tells secondaries that zones have changed (RFC 1996), each until
// it says that it knows.
type notifier struct {
	log      *slog.Logger
	exchange func(ctx context.Context, n notification) error
	context  context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu      sync.Mutex
	newest  *snapshot // that was announced
	targets map[targetKey]*target
	slots   map[netip.AddrPort]chan struct{} // capacity notifiesPerSecondary
}

type targetKey struct {
	zone      name
	secondary netip.AddrPort
}

// A target is a secondary of a zone. It is guarded by the notifier's mu.
type target struct {
	zone  *zone    // newest
	key   *tsigKey // nil: messages are not signed
	lost  string   // the key is not known: its name
	known uint32   // serial that the secondary has acknowledged
	told  bool     // it has acknowledged one
	gone  bool     // the configuration does not have it any more

	working bool          // a goroutine tells it
	paid    time.Time     // until when the messages so far are paid for
	next    time.Time     // when it may be told next
	delay   time.Duration // after the next failure
	failing bool          // the last message was not acknowledged
}

// A notification is a message that a zone has changed.
type notification struct {
	zone      *zone
	secondary netip.AddrPort
	key       *tsigKey // nil: it is not signed
}

// newNotifier makes a notifier, which end ends.
func newNotifier(log *slog.Logger, exchange func(context.Context, notification) error) *notifier {
	n := &notifier{
		log:      log,
		exchange: exchange,
		targets:  make(map[targetKey]*target),
		slots:    make(map[netip.AddrPort]chan struct{}),
	}
	n.context, n.cancel = context.WithCancel(context.Background())
	return n
}

// end ends all telling and returns when nothing runs any more.
func (n *notifier) end() {
	n.cancel()
	n.running.Wait()
}

// announce has the secondaries of each zone told which serial it has now, as
// far as they do not know. It does not wait for them. It must not be called
// after end.
func (n *notifier) announce(snap *snapshot) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if snap == n.newest {
		return
	}
	n.newest = snap
	wanted := make(map[targetKey]bool)
	slots := make(map[netip.AddrPort]chan struct{})
	for _, z := range snap.sorted {
		for _, secondary := range snap.transfers[z.apex].Notify {
			k := targetKey{z.apex, secondary.Address}
			wanted[k] = true
			t := n.targets[k]
			if t == nil {
				t = new(target)
				n.targets[k] = t
			}
			slot := n.slots[secondary.Address]
			if slot == nil {
				slot = make(chan struct{}, notifiesPerSecondary)
				n.slots[secondary.Address] = slot
			}
			slots[secondary.Address] = slot
			t.zone = z
			t.key, t.lost = snap.keys.find(secondary)
			if !t.working && t.pending() {
				t.working = true
				n.running.Go(func() { n.tell(k, t, slot) })
			}
		}
	}
	for k, t := range n.targets {
		if !wanted[k] {
			t.gone = true // its goroutine ends after the message it is at
			delete(n.targets, k)
		}
	}
	n.slots = slots
}

// find returns the key for messages to a secondary, or else the name of one
// that is not there.
func (k tsigKeys) find(secondary pool.Secondary) (key *tsigKey, lost string) {
	if secondary.Key == "" {
		return nil, ""
	}
	if owner, err := parseName(secondary.Key); err == nil && k[owner] != nil {
		return k[owner], ""
	}
	return nil, secondary.Key
}

// pending reports whether the secondary does not know the newest serial.
func (t *target) pending() bool { return !t.gone && (!t.told || t.known != t.zone.serial) }

// tell tells a secondary the newest serial until it knows it.
func (n *notifier) tell(k targetKey, t *target, slot chan struct{}) {
	for {
		n.mu.Lock()
		wait := time.Until(t.next)
		if t.working = t.pending() && n.context.Err() == nil; !t.working {
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		n.sleep(wait)
		select {
		case slot <- struct{}{}:
		case <-n.context.Done():
			continue
		}
		n.mu.Lock()
		m, lost, pending := notification{t.zone, k.secondary, t.key}, t.lost, t.pending()
		n.mu.Unlock()
		if pending {
			err := fmt.Errorf("there is no key %s", lost)
			if lost == "" {
				err = n.exchange(n.context, m)
			}
			if n.context.Err() == nil {
				n.done(t, m, err)
			}
		}
		<-slot
	}
}

// done takes down what has become of a message.
func (n *notifier) done(t *target, m notification, err error) {
	result := notifyFailed
	switch {
	case err == nil:
		result = notifyAcknowledged
	case errors.Is(err, errUnanswered):
		result = notifyUnanswered
	case errors.Is(err, errRejected):
		result = notifyRejected
	}
	m.zone.counts.notifies[result].Add(1)

	n.mu.Lock()
	defer n.mu.Unlock()
	wasFailing, wasTold := t.failing, t.told
	t.failing = err != nil
	now := time.Now()
	log := n.log.With("zone", m.zone.conf.Name, "secondary", m.secondary, "serial", m.zone.serial)
	if err == nil {
		t.known, t.told = m.zone.serial, true
		if t.paid.Before(now) {
			t.paid = now
		}
		t.paid = t.paid.Add(notifyInterval)
		t.delay, t.next = 0, t.paid.Add(-notifyBurst*notifyInterval)
		if wasFailing || !wasTold {
			log.Info("secondary is told of changes")
		}
		return
	}
	t.delay = min(max(2*t.delay, notifyRetryFirst), notifyRetryMost)
	t.next = now.Add(t.delay)
	if !wasFailing {
		log.Warn("secondary cannot be told of changes, it is tried again", "err", err)
	}
}

func (n *notifier) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-n.context.Done():
	}
}

var (
	errUnanswered = errors.New("no answer")
	errRejected   = errors.New("the secondary says")
)

// exchangeNotify sends a notification and waits for its acknowledgement.
func exchangeNotify(ctx context.Context, n notification) error {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "udp", n.secondary.String())
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // fails once c is closed
	defer stop()
	if err := c.SetDeadline(time.Now().Add(notifyPatience)); err != nil {
		return err
	}
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails
	query, sig := n.message(binary.BigEndian.Uint16(id[:]))
	if _, err := c.Write(query); err != nil {
		return err
	}
	answer := make([]byte, maxQuery)
	for {
		size, err := c.Read(answer) // of the secondary alone: c is connected
		if err != nil {
			return fmt.Errorf("%w: %w", errUnanswered, err)
		}
		if rcode, ok := acknowledged(query, answer[:size], sig, time.Now()); ok && rcode != rcodeSuccess {
			return fmt.Errorf("%w %s", errRejected, rcodeText(rcode))
		} else if ok {
			return nil
		}
	}
}

// message returns the notification as it is sent, and the signer that has
// signed it, nil if none.
func (n notification) message(id uint16) ([]byte, *tsigSigner) {
	z := n.zone
	m := binary.BigEndian.AppendUint16(nil, id)
	m = binary.BigEndian.AppendUint16(m, opcodeNotify<<11|flagAA) // RFC 1996 section 3.7
	m = append(m, 0, 1, 0, 1, 0, 0, 0, 0)
	m = append(m, z.apex...)
	m = append(m, 0, typeSOA, 0, classIN)
	m = append(m, z.soa.wire...)
	if n.key == nil {
		return m, nil
	}
	sig := &tsigSigner{key: n.key, keyName: n.key.name, algorithm: n.key.algorithm}
	return sig.sign(m, 0, time.Now()), sig
}

// acknowledged reads the answer to a notification. It reports false for what
// is no answer to it, or could be somebody else's.
func acknowledged(sent, answer []byte, sig *tsigSigner, now time.Time) (rcode uint16, ok bool) {
	if len(answer) < headerLen || answer[0] != sent[0] || answer[1] != sent[1] {
		return 0, false
	}
	flags := binary.BigEndian.Uint16(answer[2:])
	if flags&flagQR == 0 || flags&opcodeMask>>11 != opcodeNotify {
		return 0, false
	}
	rcode = flags & 0xf
	// What was asked comes back, unless that could not be read.
	questions := binary.BigEndian.Uint16(answer[4:])
	var asked, echoed query
	_, _ = asked.readQuestion(sent)
	if questions > 1 || questions == 0 && rcode == rcodeSuccess && sig != nil {
		return 0, false
	}
	at := headerLen
	if questions == 1 {
		var read bool
		if at, read = echoed.readQuestion(answer); !read || echoed.qtype != asked.qtype || name(echoed.name[:echoed.nameLen]) != name(asked.name[:asked.nameLen]) {
			return 0, false
		}
	}
	if sig == nil {
		return rcode, true
	}
	if !echoed.readRecords(answer, at) {
		return 0, false
	}
	if echoed.tsigKey == nil {
		// A server that knows neither key nor signature says so unsigned; all it
		// can do is to be asked again.
		return rcode, rcode != rcodeSuccess
	}
	return rcode, sig.verifies(answer, &echoed, now) || rcode == rcodeNotAuth
}

// verifies reports whether the response that q was read from is signed by the
// one that s has signed a message for.
func (s *tsigSigner) verifies(packet []byte, q *query, now time.Time) bool {
	t, ok := parseTSIG(q.tsig)
	if !ok || len(t.mac) != s.key.size || t.algorithm != s.algorithm || apart(t.stamp, now) {
		return false
	}
	owner := append([]byte(nil), q.tsigKey...)
	lower(owner)
	signed := &tsigSigner{key: s.key, prior: s.prior, err: t.err, server: t.other}
	return name(owner) == s.keyName && hmac.Equal(signed.mac(original(packet, q.tsigAt, t.id), t.stamp), t.mac)
}

func rcodeText(rcode uint16) string {
	if int(rcode) < len(rcodeNames) && rcodeNames[rcode] != "" {
		return rcodeNames[rcode]
	}
	return fmt.Sprintf("response code %d", rcode)
}

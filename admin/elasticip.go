package admin

import (
	"fmt"
	"net/netip"
	"time"
)

// An ElasticIP is what is known about the Elastic IP of this host.
type ElasticIP struct {
	Address    netip.Addr // the zero value: not known yet
	Allocation string
	Instance   string    // this one; empty: not known yet
	Holder     string    // the instance it is at; empty: none
	Asked      time.Time // before EC2 was asked for that; zero: it has not answered yet
	Here       bool      // Holder is Instance
	Takeover   bool      // hosts take turns, by a lock
	Locked     bool      // it is this host's turn
	Mine       bool      // this host may answer with it
	Err        string    // why what is known is not the newest; empty: it is
}

// ElasticIPStatus is an ElasticIP in a [Status].
type ElasticIPStatus struct {
	Address    string    `json:"address"` // empty: not known yet
	Allocation string    `json:"allocation"`
	Instance   string    `json:"instance"`
	Holder     string    `json:"holder"`
	Held       bool      `json:"held"` // this host may answer with it
	Takeover   bool      `json:"takeover"`
	Locked     bool      `json:"locked"`
	Asked      time.Time `json:"asked,omitzero"`
	Age        int       `json:"age_seconds"` // since then
	Error      string    `json:"error"`
	Verdict    Verdict   `json:"verdict"`
}

func (s *Server) elasticIP(now time.Time) *ElasticIPStatus {
	if s.opts.ElasticIP == nil {
		return nil
	}
	e, ok := s.opts.ElasticIP()
	if !ok {
		return nil
	}
	out := &ElasticIPStatus{
		Allocation: e.Allocation,
		Instance:   e.Instance,
		Holder:     e.Holder,
		Held:       e.Mine,
		Takeover:   e.Takeover,
		Locked:     e.Locked,
		Asked:      seconds(e.Asked),
		Error:      e.Err,
		Verdict:    e.verdict(),
	}
	if e.Address.IsValid() {
		out.Address = e.Address.String()
	}
	if !e.Asked.IsZero() {
		out.Age = int(max(0, now.Sub(e.Asked)) / time.Second)
	}
	return out
}

// verdict says in words how it is with e.
func (e *ElasticIP) verdict() Verdict {
	name := e.Allocation
	if e.Address.IsValid() {
		name = e.Address.String()
	}
	if name == "" {
		name = "of this host"
	}
	say := func(level Level, format string, args ...any) Verdict {
		text := "Elastic IP " + name + " " + fmt.Sprintf(format, args...)
		if e.Err != "" {
			text += "; " + e.Err
			if level == OK {
				level = Warn
			}
		}
		return Verdict{Level: level, Text: text}
	}
	at := "at no instance"
	if e.Holder != "" {
		at = "at " + e.Holder
	}
	switch {
	case e.Asked.IsZero() && e.Err == "":
		return say(Starting, "is being asked for")
	case e.Asked.IsZero():
		return say(Warn, "may be anywhere")
	case e.Mine && e.Takeover && !e.Locked:
		return say(Warn, "is here, though the lease is lost: EC2 confirms it again and again")
	case e.Mine:
		return say(OK, "is here")
	case e.Takeover && e.Here && e.Locked:
		return say(OK, "has just come here")
	case e.Takeover && e.Here:
		return say(Warn, "is here, but it is not this host's turn: not answered")
	case e.Takeover && e.Locked:
		return say(Warn, "is still %s, it is this host's turn: being taken", at)
	case e.Takeover:
		return say(OK, "is %s: this host stands by", at)
	}
	return say(Warn, "is %s, not here: clients of it do not reach this host", at)
}

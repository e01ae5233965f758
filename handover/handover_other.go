//go:build !linux

package handover

import (
	"context"
	"errors"
)

// There are no upgrades on this system: [ThisProgram] says so, and nothing
// else is ever called on more than nil.
type (
	Program     struct{}
	Successor   struct{}
	Predecessor struct{}
	Estate      struct{}
	Inheritance struct{}
)

func ThisProgram() (*Program, error)          { return nil, errors.ErrUnsupported }
func (p *Program) Path() string               { return "" }
func (p *Program) Changed() bool              { return false }
func (p *Program) Start() (*Successor, error) { return nil, errors.ErrUnsupported }

func (s *Successor) PID() int                            { return 0 }
func (s *Successor) Prepared(context.Context) error      { return errors.ErrUnsupported }
func (s *Successor) Give(context.Context, *Estate) error { return errors.ErrUnsupported }
func (s *Successor) Ready(context.Context) error         { return errors.ErrUnsupported }
func (s *Successor) Leave(context.Context) error         { return errors.ErrUnsupported }
func (s *Successor) Kill()                               {}
func (e *Estate) AddSocket(name string, fd int) error    { return errors.ErrUnsupported }
func (e *Estate) Save(name string, v any) error          { return errors.ErrUnsupported }
func (e *Estate) Close()                                 {}
func (in *Inheritance) Take(name string) []int           { return nil }
func (in *Inheritance) Load(string, any) (bool, error)   { return false, nil }
func (in *Inheritance) Close() (names []string)          { return nil }
func Inherit() (*Predecessor, error)                     { return nil, nil }
func (p *Predecessor) Ready(context.Context) error       { return errors.ErrUnsupported }
func (p *Predecessor) Wait(context.Context) error        { return errors.ErrUnsupported }
func (e *Estate) AddElder(*Predecessor) error            { return errors.ErrUnsupported }
func (in *Inheritance) TakeElders() []*Predecessor       { return nil }
func (p *Predecessor) Fail(error)                        {}
func (p *Predecessor) Receive(context.Context) (*Inheritance, error) {
	return nil, errors.ErrUnsupported
}

package pool

// DNSSEC says how a zone is signed. The zero value: not at all.
type DNSSEC struct {
	Folder string    // where the keys lie; empty: the zone is not signed
	Keys   []KeyFile // sorted by Path; at least one where Folder is set
	CDS    CDS
}

// A KeyFile is the text of the files of a key, in the format of BIND, as it was
// when the Set was made.
type KeyFile struct {
	Path    string // of the private half
	Public  string
	Private Secret
}

// CDS says what the zone asks of its parent by CDS and CDNSKEY records, RFC
// 7344 and 8078.
type CDS uint8

const (
	CDSPublish  CDS = iota // to have a DS of every key that is published
	CDSWithdraw            // to have none: the zone is about to be no longer signed
	CDSOff                 // nothing
)

var cdsActions = names{"publish", "withdraw", "off"}

func (c CDS) String() string { return cdsActions.name(int(c)) }

// ParseCDS is the inverse of String.
func ParseCDS(s string) (CDS, error) { return parse[CDS](cdsActions, s) }

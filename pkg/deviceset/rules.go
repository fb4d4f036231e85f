package deviceset

// A Rule is a way in which something that a crash or an error left open is decided.
type Rule string

// The rules. docs/state.md has them with their reasons.
const (
	RuleCreateThere   Rule = "a create whose thin device is there has happened"
	RuleCreateAbsent  Rule = "a create whose thin device is absent never will"
	RuleDeleteThere   Rule = "a delete whose thin device is there is done again"
	RuleDeleteAbsent  Rule = "a delete whose thin device is absent has happened"
	RuleDeleteBusy    Rule = "a delete of a device that is open waits"
	RuleRaiseAgain    Rule = "a generation that the journal has and the pool has not is raised"
	RuleRaised        Rule = "a generation that both have was raised"
	RuleInactive      Rule = "a table that was loaded and not resumed is dropped"
	RuleSuspended     Rule = "a device that is suspended is resumed"
	RuleNoTable       Rule = "a device without a table is removed"
	RuleGrown         Rule = "a device that is shorter than its record grows"
	RuleFormatting    Rule = "a device whose formatting did not end is emptied and formatted anew"
	RuleBorn          Rule = "a birth that is on record without its time gets it from the pool"
	RuleMakeAgain     Rule = "a pool whose making did not end is made again"
	RuleOtherStore    Rule = "a root whose pool has another owner's mark changes nothing"
	RuleRootOlder     Rule = "a root that lacks frames of the label changes nothing"
	RulePoolOlder     Rule = "a pool whose label lacks an ended operation changes nothing"
	RuleOtherRaise    Rule = "a pool with a generation that the journal has not changes nothing"
	RuleLabelsCopy    Rule = "a journal that is damaged is read from the label"
	RuleLabelDamaged  Rule = "a label that is damaged is written anew from the root"
	RuleAdopted       Rule = "an adopted device has its record's birth"
	RuleKeptAway      Rule = "a thin device without a record is kept in quarantine"
	RuleDeleteKept    Rule = "a thin device whose delete had begun is kept when its pool is adopted"
	RuleOrphan        Rule = "an id that the pool has, and nobody knows of, is not taken"
	RuleMetadataGiven Rule = "metadata that the journal has given is there"
)

// Rules are all rules.
var Rules = []Rule{
	RuleCreateThere, RuleCreateAbsent, RuleDeleteThere, RuleDeleteAbsent, RuleDeleteBusy,
	RuleRaiseAgain, RuleRaised, RuleInactive, RuleSuspended, RuleNoTable, RuleGrown,
	RuleFormatting, RuleBorn, RuleMakeAgain, RuleOtherStore, RuleRootOlder, RulePoolOlder,
	RuleOtherRaise, RuleLabelsCopy, RuleLabelDamaged, RuleAdopted, RuleKeptAway,
	RuleDeleteKept, RuleOrphan, RuleMetadataGiven,
}

// A Witness is a Machine that wants to know which rules decide.
type Witness interface{ Decided(Rule) }

func (s *DeviceSet) decided(r Rule) {
	if w, ok := s.machine.(Witness); ok {
		w.Decided(r)
	}
}

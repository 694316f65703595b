package catalog

// A sym stands for a string. Equal strings have equal syms, so that comparing
// and hashing them costs nothing and each text is in memory once, however many
// images have it. The zero sym is null.
type sym uint32

// symbols hands out syms and counts their users, so that the texts of images
// long gone do not pile up.
type symbols struct {
	bySym  []string
	users  []uint32
	byText map[string]sym
	free   []sym
}

func newSymbols() *symbols {
	return &symbols{bySym: []string{""}, users: []uint32{1}, byText: map[string]sym{}}
}

// take returns the sym of text for one more user.
func (s *symbols) take(text string) sym {
	y, ok := s.byText[text]
	if !ok {
		y = s.add(text)
	}
	s.users[y]++
	return y
}

// takeSet is take, but the empty text is null.
func (s *symbols) takeSet(text string) sym {
	if text == "" {
		return 0
	}
	return s.take(text)
}

func (s *symbols) add(text string) sym {
	var y sym
	if n := len(s.free); n > 0 {
		y, s.free = s.free[n-1], s.free[:n-1]
		s.bySym[y] = text
	} else {
		y = sym(len(s.bySym))
		s.bySym = append(s.bySym, text)
		s.users = append(s.users, 0)
	}
	s.byText[text] = y
	return y
}

// drop takes back one use of y.
func (s *symbols) drop(y sym) {
	if y == 0 {
		return
	}
	if s.users[y]--; s.users[y] == 0 {
		delete(s.byText, s.bySym[y])
		s.bySym[y] = ""
		s.free = append(s.free, y)
	}
}

// find returns the sym of text, if any image has it.
func (s *symbols) find(text string) (sym, bool) {
	y, ok := s.byText[text]
	return y, ok
}

// text returns what y stands for; null is "".
func (s *symbols) text(y sym) string { return s.bySym[y] }

// compare orders two syms by their texts, null first.
func (s *symbols) compare(a, b sym) int {
	switch x, y := s.bySym[a], s.bySym[b]; {
	case a == b:
		return 0
	case a == 0:
		return -1
	case b == 0:
		return 1
	case x < y:
		return -1
	}
	return 1
}

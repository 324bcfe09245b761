"""How attackers learn: one loop, its branch on twice the data, schedules, optimisers, closed forms."""

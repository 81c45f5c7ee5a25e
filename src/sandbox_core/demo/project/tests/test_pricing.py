"""What the prices of a cart have to be."""

import unittest

from cart.pricing import Item, subtotal, total


class PricingTest(unittest.TestCase):
    """Prices in cents."""

    def test_an_empty_cart_costs_nothing(self) -> None:
        self.assertEqual(0, total([]))

    def test_every_piece_is_counted(self) -> None:
        self.assertEqual(750, subtotal([Item("pen", 150, quantity=5)]))

    def test_a_discount_applies_to_the_whole_cart(self) -> None:
        items = [Item("pen", 150, quantity=2), Item("book", 1999)]
        self.assertEqual(2069, total(items, discount_percent=10))

    def test_a_discount_over_one_hundred_percent_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            total([], discount_percent=101)


if __name__ == "__main__":
    unittest.main()

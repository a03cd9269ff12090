"""Comparing answers: pairs of every kind worked by hand, what must hold for all, hostile input, real answers."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import data_dir

from cpmi_eval.grading import verdict
from cpmi_eval.grading.comparing import is_number
from cpmi_eval.grading.reader import read, words
from cpmi_eval.grading.units import UNITS

# One pair a line. Every kind has its near misses: a wrong answer that counts as right is the worse mistake.
KINDS = {
    "opposites and marks": r"""
5 left != 5 right
5 miles north != 5 miles south
5 up != 5 down
5 times != 5 apples
5 times == 5
5 mm != 5 Mm
5 mW != 5 MW
5 mm == 0.5 cm
\vec{AB} != \overline{AB}
\angle ABC != \triangle ABC
\overline{AB} == AB
1:2 == 1/2
1:2 != 2
\pi == 180^\circ
\frac{\pi}{2} == 90^\circ
\frac{\pi}{2} != 180^\circ
x>2 and x<5 == (2,5)
x>2 and x<5 != (2,6)
|x|<2 == -2<x<2
|x|\le 2 == [-2,2]
|x|<2 != x<2
20 June == June 20
20th of June == June 20
20 June != June 21
3/8 or 0.375 == 3/8
3/8 or 0.4 != 3/8
""",
    "white space and commas": r"""
3 1/2 == 7/2
3 1/2 == 3.5
-3 1/2 == -3.5
1, 200 == 200, 1
1,2,3 == 1, 2, 3
5 or 6 == 6, 5
1,000 == 1000
10,000 == 10000
2 3/4 == 11/4
-2 1/2 == -2.5
1,000,000 == 1000000
1\,000\,000 == 1000000
-1,200 == -1200
1,200.5 == 1200.5
\gcd(12,18) == 6
\max(3,5) == 5
1,2,\ldots,10 == 1,2,\dots,10
1,200 == 1200
32,\!760 == 32760
11,\! 111 == 11111
10\,000 == 10,000
1 1/2 == 3/2
1,2 == 2,1
3 1/2 != 3/2
1, 200 != 1200
12 34 != 1234
1 000 000 != 5
5 6 != 30
1,00 != 100
1.000,00 != 1000
12,34 != 1234
x_{12} != x_1 2
2,345 != 2, 345
5,10 != 510
1 2 != 12
2 3/4 != 23/4
10 1/2 != 101/2
5, 10 != 5,10,15
5 10 != 5, 10
1 000 000 != 1
C(6,2) != 15
1,2,...,10 != 1,2,...,11
1,2 != 1,3
4, -2 + 3i, -2 - 3i != 4, -2 + 3i, -2 - 5i
1,234 != 1, 234
12 345 != 12345
1 1/2 != 11/2
7 3 != 73
x 1 != x1 2
3 4/5 != 34/5
2 \pm 1 != 3, 2
5 3 != 15
""",
    "large, small, exact, repeating": r"""
1e3 == 1000
6.63 \times 10^{-34} == 6.63e-34
1/2^99 == 2^{-99}
0.999... == 1
2^{64} == 18446744073709551616
0.\overline{9} == 1
0.\overline{142857} == 1/7
0.1666... == 1/6
0.(3) == 1/3
1.\overline{3} == 4/3
0.\dot{6} == 2/3
2.5E-3 == 0.0025
2^{x+1} == 2\cdot 2^x
n! == n!
\binom{10}{3} == 120
\overline{AB} == AB
5! == 120
3 x 10^4 == 30000
3 x 10^4 == 3 \times 10^4
3x10^4 == 30000
10^−3 == 0.001
10^-3 == 0.001
1.2E+3 == 1200
0.3\overline{3} == 1/3
.\overline{3} == 1/3
0.33\ldots == 1/3
5.0 \times 10^3 == 5000
5.0*10^3 == 5000
2·10^3 == 2000
1{,}000{,}000 == 10^6
2^10 == 1024
2^{-1} == \frac12
\frac{n(n+1)}{2} == \binom{n+1}{2}
(n+1)! == (n+1)\cdot n!
5! + 1 == 121
\binom{n}{k} == \binom{n}{k}
\binom{6}{2} == 15
6! == 720
10^{12} == 1000000000000
10^{10^{10}} == 10^{10^{10}}
0.3333333333 != \frac13
6.63 \times 10^{-34} != 6.63 \times 10^{-33}
10^{-19} != 10^{-20}
\frac{1}{2^{99}} != \frac{1}{2^{98}}
1/2^99 != 1/2^98
10^{50} != 10^{50}+1
\frac{\pi}{10^{30}} != \frac{\pi}{10^{31}}
\sqrt{2}\cdot 10^{-20} != \sqrt{3}\cdot 10^{-20}
1.0000000001 != 1
0.999999 != 1
\frac{1}{3} != 0.33333333333333333
100000000000000000001 != 100000000000000000000
2^{1000} != 2^{1000}+1
5!! != 5
1e-10 != 2e-10
\frac{1}{10^{10}} != \frac{2}{10^{10}}
1+10^{-15} != 1
\sqrt{2}+10^{-12} != \sqrt2
10^{-50}\pi != 0
\overline{z} != z
3!! != 6
3\ldots != 3
0.333333 != 1/3
10^{-19} != 0
10^{-9} != 0
1.0000001 != 1
123456789012 != 123456789013
\frac{1}{7} != 0.142857
\sqrt{2} != 1.41421356237
\pi != 3.14159265358979
e != 2.718281828
2^{50} != 2^{51}
100! != 101!
1.5 \times 10^{10} != 1.5 \times 10^{11}
-2^2 != 4
2^{3^2} != 64
\binom{5}{2} != \binom{5}{1}
0.3 != 0.\overline{3}
0.33 != 0.333...
0.12... != 0.12
3.14... != 3.14
""",
    "numbers in words": r"""
five == 5
twenty-one == 21
one hundred and five == 105
three million == 3000000
a dozen == 12
2 dozen == 24
half == 1/2
one half == 0.5
two thirds == 2/3
a third == 1/3
3 quarters == 0.75
5 thousand == 5000
5 cubed == 125
4 squared == 16
2 halves == 1
7 eighths == 7/8
1.2 thousand dollars == 1200
$1.2 million == \$1,200,000
5 and a half == 5.5
x \neq 2 == \mathbb{R} \setminus \{2\}
minus 5 == -5
5 hundred thousand == 500000
5 dozen eggs == 60
\mathbb{R}\setminus\{0\} == (-\infty,0)\cup(0,\infty)
4 tenths == 0.4
9 thousandths == 0.009
one million == 10^6
5 m/s^2 == 5 meters per second squared
1 dozen == 12
5 thousand != 5
7 eighths != 7
A \setminus B != B \setminus A
5 dozen != 5
4 tenths != 4
7 dozen != 7
2 squared != 2
1 million != 1
5 minus 2 != 5
two-thirds == 2/3
5th == 5
5th != 6th
two-thirds != 2
five hundred != 5
""",
    "percent": r"""
5\% == 5
5\% == 0.05
50 percent == 50\%
12.5\% == 1/8
5 % == 5\%
5 per cent == 5\%
0.\overline{36}\% == 0.\overline{36}
5\text{\%} == 5\%
5 \, \% == 5%
\frac{1}{2} = 50\% == 50%
1\frac12\% == 1.5\%
\frac{1}{2}\% == 0.5\%
200\% == 2
50\% == \frac12
5 percent == 5%
5\% != 0.5
5 percent != 500
5 degrees != 5 percent
5\% increase == 5\%
5\% decrease != 5\% increase
10\% more != 10\% less
45^\circ != 45\%
""",
    "units": r"""
5 km == 5 kilometers
5 km == 5000 m
1 hour == 60 minutes
100 cm == 1 m
5 kg == 5 kilograms
5 lbs == 5 pounds
5 oz == 5 ounces
5 gal == 5 gallons
5 L == 5 liters
5 mL == 5 milliliters
5 yd == 5 yards
5 mi == 5 miles
5 sec == 5 seconds
5 secs == 5 s
5 m/s == 5 meters per second
5 m/s == 5 m s^{-1}
36 km/h == 10 m/s
25 mph == 25 miles/hour
25 \text{ mi/h} == 25 mph
5 cubic feet == 5 ft^3
5 \text{ cubic feet} == 5 \text{ cu. ft.}
5 square meters == 5 m^2
5 sq. m == 5 m²
5 in.^2 == 5 square inches
12 \text{ in}^3 == 12 \text{ cubic inches}
5 dollars == \$5
\$5 == 5
€5 == 5 euros
50 cents == \$0.50
50 cents == 0.50 dollars
5 apples == 5 apple
5 boxes == 5 box
5 people == 5 persons
5 degrees C == 5^\circ C
5^\circ C == 5 degrees Celsius
5°C == 5 °C
\pi \text{ radians} == \pi
2\pi \text{ rad} == 2\pi
3x \text{ cm} == 3x
3x \text{ cm} == 3x \text{ centimeters}
\frac{x}{2} \text{ dollars} == \frac x2
\frac{3}{4} \text{ hours} == 45 \text{ minutes}
18 eggs per day == 18
$18 per day == $18/day
18 miles per gallon == 18
1 2/3 cups == 5/3
2 1/2 hours == 2.5 hours
\$3.00 == 3
3.50 == \$3.5
3 \sqrt{2} \text{ cm} == \sqrt{18}
\sqrt{3} cm == \sqrt3
\frac{1}{2} mile == 1/2
1/2 mile == 0.5
2 1/2 miles == 2.5
5 ways == 5
\text{5 ways} == 5 \text{ ways.}
5 metres == 5 m
5 metres == 5 meters
5 centimetres == 5 cm
5 sq in == 5 square inches
5 sqft == 5 square feet
5 ft2 == 5 square feet
5 m2 == 5 m^2
5 cc == 5 cubic centimeters
5 km/hr == 5 kph
5 km/hr == 5 kilometers per hour
5 kmh == 5 km/h
5 hr == 5 h
5 mins == 5 minutes
5 secs == 5 seconds
5 yrs == 5 years
5 kgs == 5 kg
5 lbs. == 5 pounds
5 deg == 5 degrees
US$50 == 50
50 USD == $50
$50 USD == 50
50 € == €50
50 EUR == €50
50€ == 50
6' == 6 ft
6'' == 6 in
6" == 6 inches
5 in. == 5 inches
5 pairs == 5
5 people in total == 5
5 in total == 5
5 total == 5
5 apiece == 5
5 each == 5
5 tickets left == 5 tickets
5 W == 5
\hspace{1cm}5 == 5
\frac{\pi}{2} \text{ radians} == \pi/2
3\frac{1}{2}\text{ hours} == 3.5 hours
3 1/2 \text{ cups} == 3.5
\text{lcm}(4,6) == 12
\$1,200.50 == 1200.5
12 \text{ cm} == 12
12 cm == 12\text{ cm}
12 inches == 12 inch
5\text{ cm}^2 == 5 cm^2
12\text{ cm} == 2\sqrt{36}
5 miles per hour == 5 mph
5 mi/hr == 5 mph
5 feet per second == 5 ft/s
5 ft/sec == 5 ft/s
5 newtons == 5 N
5 yards == 15 feet
1 mile == 5280 feet
1 kg == 1000 g
30 seconds == 0.5 minutes
25 cents == $0.25
25¢ == $0.25
£3.50 == 3.5
10 square miles == 10 mi^2
10 sq mi == 10 mi²
10 sq. ft. == 10 ft^2
10 cu in == 10 in^3
3\text{ sq. units} == 3 \text{ units}^2
3 cubic units == 3 \text{ units}^3
x \text{ units} == x
\frac{1}{2}\pi \text{ square units} == \frac{\pi}{2}
12 \text{ hours} == 12\text{ hrs.}
\text{\$5} == 5
5\text{ dollars} == \text{\$}5
5 km != 5 miles
5 m/s != 5 km/h
5 cubic feet != 5 square feet
5 feet != 5 inches
5 dollars != 5 euros
€5 != £5
$5 != €5
5°C != 5°F
5°F != 5 K
3x \text{ cm} != 3x \text{ m}
5 dollars per pound != 5 dollars per ounce
\sqrt{3} cm != \sqrt3 m
30 mph != 30 km/h
$2.5M != 2.5
5 N != 5 m
12 cm != 12 km
12 cm != 12 m
5 meters != 5 miles
5 grams != 5 kg
5 days != 5 hours
5 cm != 5 cm^2
5 square cm != 5 cubic cm
7\pi \text{ ft} != 7\pi \text{ ft}^2
5 liters != 5 gallons
100 pounds != 100 kilograms
12 dollars != 12 cents
12 yen != 12 dollars
45 mph != 45^\circ
5 ft 6 in != 5
5 ft 6 in != 5 ft
2 hours 30 minutes != 2
2 hours and 30 minutes != 2
2 hours 30 minutes == 150 minutes
1 hour and 30 minutes == 1.5 hours
5 ft 6 in == 66 inches
12 dollars and 50 cents == 12.5
1 lb 8 oz == 1.5 lb
3 days 4 hours == 76 hours
3/4 of a cup == 3/4
1 hour 30 minutes != 1.3 hours
5 feet 6 inches != 5.6 feet
5 cm and 6 cm != 11 cm
5 apples and 3 oranges != 8
5 dollars 3 != 5
\frac{1}{2} \text{ of } x != 1/2
5 more != 5 less
5 years older != 5 years younger
$5.50 != $5.05
-$5 != 5
3 cubic units != 3 square units
""",
    "times of day and ratios": r"""
1:2 == 2:4
8 p.m. == 8:00 PM
12:30 == 12:30 PM
13:05 == 1:05 PM
3:4 == 6:8
1:2:3 == 2:4:6
7 am == 7:00 a.m.
3:30 pm == 15:30
a:b = 2:3 == 2:3
2:3 == 4:6
2 : 3 == 2:3
\text{4:30 p.m.} == 4:30 p.m.
7\text{ p.m.} == 7 PM
7:00 \text{ p.m.} == 19:00
8 p.m. != 8 a.m.
13:05 != 1:05 AM
3:4 != 4:3
2:3 != 3:4
1:2:3 != 1:2:4
10:30 != 1:3
3:4 != 3/5
9:30 != 9:45
9:30 AM != 9:30 PM
""",
    "equations and names": r"""
x^2=4 == x^2-4=0
5=x == x=5
y=5 == 5
x = 5 == 5
n = 5 \text{ apples} == 5
a=b+1 == b+1
f(x)=2x+1 == 2x+1
g(t)=t^2 == t^2
y=x^2 == y - x^2 = 0
x=3,y=4 == y=4,x=3
x = 1 or x = 2 == 1, 2
x=1, 2 == x=2 or x=1
x=\pm 2 == -2, 2
\theta = 30^\circ == 30
\angle ABC = 30^\circ == 30
m\angle A = 40 == 40
x=y == y=x
a_n = 2n == 2n
4x-5y=-50 == 8x-10y=-100
x=2y == 2y
0=x == 0
x = 2 \text{ or } x = -2 == \pm 2
x=2, x=-2 == x = \pm 2
y = 2x+1 == y-2x = 1
y = 2x+1 == 2x - y + 1 = 0
3x+2y=6 == y = 3 - \frac32 x
x^2+y^2=4 == y^2+x^2-4=0
x^2+y^2=4 == 2x^2+2y^2=8
(x-1)^2+(y-2)^2=9 == x^2-2x+y^2-4y-4=0
f(x)=x+1 == x+1
f(n)=n^2 == n^2
P(A)=\frac12 == 1/2
P(A) = 0.5 == 1/2
a_n=2n+1 == 2n+1
a_5 = 31 == 31
x_1=3 == 3
S_{10} = 55 == 55
AB = 5\text{ cm} == 5
\overline{AB} = 5 == 5
\angle A = 40^\circ == 40
\text{Area} = 12 == 12
Total = 12 == 12
[ABC] = 12 == 12
|AB| = 5 == 5
\lambda = 3 == 3
3+4=7 == 7
3 \cdot 4 = 12 == 12
2+2 = 4 = 2^2 == 4
100 - 40 = 60 dollars == 60
1/2 = 0.5 == 1/2
x = 3+4 = 7 == 7
48+24=72 == 72
5 \pmod 7 == 5 \pmod{7}
5 \pmod 7 == 5
x \equiv 5 \pmod{7} == 5 \pmod{7}
5 (mod 7) == 5 \pmod 7
x=5 == 5
x+5=7 != 7
x+5=7 != 2
2x=10 != 5
x^2=4 != 2
5=x != x=6
f(x) = 2x+1 != f(x)=2x+2
x=3 != y=3
\log x = 5 != 5
\sqrt{x}=5 != 5
\frac{x}{2}=5 != 5
-x=5 != 5
4x-5y=-50 != 4x-5y=-48
3x=15 != 15
3x=15 != 5
x^3=8 != 8
x-3=4 != 4
a+b=5 != 5
x/2=5 != 5
\log x = 2 != 2
e^x=5 != 5
|x-1|=3 != 3
x^2=9 != 9
x^2=9 != 3
n^2+n=6 != 6
5=x+2 != 5
0=x != 1
y = 2x+1 != y = 2x-1
y=x^2 != x=y^2
f(x)=x+1 != f(x)=x-1
3+4=8 != 7
(x+1)(x-1)=x^2-1 != 1
\frac{x^2}{16} - \frac{y^2}{9} = 1 != \frac{x^2}{16} - \frac{y^2}{9} = 3
x^2 = 16 != 16
2x + 1 = 9 != 9
3 = x+1 != 3
\frac{x}{3} = 4 != 4
\sqrt{x+1} = 3 != 3
x^2 - 5x + 6 = 0 != 0
x=1 != x=2
x=1 or x=2 != x=1
x=1, y=2 != x=1
y=x+1 != y=x+2
AB=5 != BC=5
f(x)=x != g(x)=x
5 \pmod 7 != 5 \pmod 8
5 (mod 7) != 5 (mod 8)
4 + 3 = 7 != 4
3+4=8 != 8
""",
    "tuples, sets, intervals, inequalities, matrices": r"""
(x,y)=(3,4) == (3,4)
−∞ == -\infty
∅ == \varnothing
\varnothing == \emptyset
\{\} == \varnothing
ℝ == \mathbb{R}
\mathbb R == (-\infty, \infty)
all real numbers == \mathbb{R}
x \in \mathbb{R} == (-\infty,\infty)
\R == \mathbb{R}
x>3 == (3,\infty)
3<x == x>3
-1<x<3 == (-1,3)
-1 \le x < 3 == [-1,3)
x<1 or x>2 == (-\infty,1)\cup(2,\infty)
x<1 \text{ or } x>2 == (2,\infty) \cup (-\infty, 1)
x\ne 2 == (-\infty,2)\cup(2,\infty)
[1,2]\cup[2,3] == [1,3]
(1,3)\cap(2,4) == (2,3)
[1,2] == [\frac{2}{2}, \sqrt{4}]
[a,b] == [a, b]
x+y<3 == y+x<3
2x<6 == x<3
A\cap B == B\cap A
p\lor q == q\lor p
\{1,2\}\cup\{3\} == \{1,2,3\}
\{5\} == 5
\{(1,2),(3,4)\} == (3,4),(1,2)
\begin{vmatrix}1&2\\3&4\end{vmatrix} == -2
\infty == +\infty
x∈[2,3] == [2,3]
x∈ℝ == ℝ
inf == \infty
-inf == -\infty
(-\infty,+\infty) == \mathbb{R}
x > 2 == 2 < x
x ≥ 2 == x \geqslant 2
x > 2 \text{ or } x < -2 == (-\infty,-2)\cup(2,\infty)
(2, \infty) == x > 2
t > 2 == (2,\infty)
[0, \infty) == x \ge 0
\{x : x > 2\} == (2,\infty)
\{x \mid x > 2\} == x>2
\{x\in\mathbb{R} : x\neq 2\} == x \ne 2
\{1\} \cup [2,3] == [2,3]\cup\{1\}
\mathbb{R}-\{0\} == (-\infty,0)\cup(0,\infty)
x \in (-\infty, 2) == x<2
\infty == infinity
\{1,2,...\} == \{1,2,\ldots\}
(1,2) == (1, 2)
\left(\frac12,3\right) == (0.5,3)
(-\infty, 3) == (-\infty,3)
\begin{pmatrix}1\\2\end{pmatrix} == \begin{pmatrix} 1 \\ 2 \end{pmatrix}
(1, 2) != 1, 2
x<3 != x \le 3
x > 3 != (3, 5)
(1,2)\cup(2,3) != (1,3)
[a,b] != (a,b)
x+y<3 != x+y>3
A\cap B != A\cup B
p\lor q != p\land q
\begin{bmatrix}1&2\end{bmatrix} != \begin{bmatrix}1\\2\end{bmatrix}
\infty != -\infty
(1,000) != 1000
(10^{-9},1) != (2\cdot 10^{-9},1)
\begin{pmatrix}10^{-9}\\1\end{pmatrix} != \begin{pmatrix}2\cdot10^{-9}\\1\end{pmatrix}
\mathbb{N} != \mathbb{Z}
\mathbb{Q} != \mathbb{R}
2 < x != 2 \le x
(-\infty,0)\cup(0,\infty) != \mathbb{R}
(1,2)\cup(3,4) != (1,4)
x\ge 5 != 5
x = 5 != x \ge 5
-\infty != \infty
x \to \infty != \infty
1/0 != \infty
(1,2) != (2,1)
(3,4) != [3,4]
(-\infty, -2) != (-\infty, -3)
x > 5 != 6
y < 2x != 2x
(2,300) != 2300
[1,000] != 1000
A \cup B != A \cap B
(-\infty, 1) != (-\infty, 1]
\{1,2,2\} == \{1,2\}
\left(3, \frac{\pi}{2}\right) != (3, \frac{2\pi}{3})
\{1,2,2\} != \{1,2,3\}
1, 2, 2 != 1, 2
[0,1] != (0,1)
\{1,2\} != (1,2)
(1,2) != [1,2]
\{1\} != \{2\}
(1,2,3) != (1,2)
\mathbb{R} != \mathbb{Q}
\emptyset != 0
\emptyset != \{0\}
\infty != 10^{100}
\begin{pmatrix}1\\2\end{pmatrix} != \begin{pmatrix}2\\1\end{pmatrix}
\begin{pmatrix}1&2\end{pmatrix} != (1,2)
""",
    "functions and degrees": r"""
\ln 2 == \log_e 2
5 degrees == 5^\circ
30^\circ == 30 \text{ degrees}
180^\circ == 180
\sin 45^\circ == \frac{\sqrt2}{2}
\sin(45^\circ) == \frac{1}{\sqrt2}
\tan(60°) == √3
\cos 120^\circ == -1/2
\sin^2 30^\circ == 1/4
\sec 60^\circ == 2
\ln(e^2) == 2
e^{\ln 5} == 5
\log_2 8 == 3
\log_{10} 1000 == 3
\sin^2 x + \cos^2 x == 1
\sin 2x == 2\sin x\cos x
\tan x == \frac{\sin x}{\cos x}
\cot x == 1/\tan x
\arctan 1 == \pi/4
\sin^{-1} 1 == \pi/2
2 \tan x == 2\tan(x)
5 ^\circ == 5
30° == 30
30º == 30
30 degrees == 30°
sin(30°) == 1/2
\sin{30^\circ} == \frac12
\cos(\pi/3) == 0.5
\tan\frac{\pi}{4} == 1
\sin\left(\frac{\pi}{6}\right) == \frac12
\sin 30^\circ + \cos 60^\circ == 1
\sin^2 45^\circ == \frac12
\sin 18^\circ == \frac{\sqrt5-1}{4}
2\sin 10^\circ \cos 10^\circ == \sin 20^\circ
\csc 30^\circ == 2
\cos 2\theta == 2\cos^2\theta-1
90^\circ-\theta == 90-\theta
\cos\theta + i\sin\theta == e^{i\theta}
\ln x + \ln y == \ln(xy)
\log_2 x == \frac{\ln x}{\ln 2}
\log_3 9 == 2
\ln e == 1
\log 100 == 2
\log_{10} 5 == \log 5
90^\circ == 90
90 degrees == 90^{\circ}
\sin^2 x+\cos^2 x == 1
\sin 30 != 0.5
2\tan x != 2
\sin x != \cos x
\sin 30^\circ != \sin 60^\circ
\log 10 != \ln 10
""",
    "notation": r"""
½ == 1/2
¾ == 0.75
⅓ == \frac{1}{3}
2⅓ == 7/3
x⁴ == x^4
x^{10} == x¹⁰
10⁻³ == 0.001
−7 == -7
–7 == -7
3 × 10⁴ == 30000
3⋅4 == 12
\mathbf{x} == x
\large 7 == 7
\rm 7 == 7
\boldsymbol{7} == 7
\mathit{x} + 1 == x+1
\Large\frac{1}{2} == 0.5
2 \pi r == 2πr
∛8 == 2
2√3/3 == \frac{2\sqrt3}{3}
√2/2 == \frac{1}{\sqrt2}
50$ == 50
0.333… == 1/3
\bf{73} == 73
{\bf 73} == 73
\mathrm{5} == 5
\underline{5} == 5
\nicefrac{1}{2} == 1/2
\left.\frac12\right. == 1/2
\tt 73 == 73
\sf 73 == 73
\scriptstyle 5 == 5
\mathop{5} == 5
5{} == 5
{}5 == 5
2∙10³ == 2000
x⋅y == xy
x·y == yx
a−b == a-b
‑5 == -5
$5$ == 5
−3 == -3
\$ 5 == 5
5´ != 6
""",
    "expressions": r"""
e^{\pi i} == -1
3\frac12 == 3.5
-3\frac12 == -7/2
31/2 == 15.5
|{-3}| == 3
|x-1| == |1-x|
\lfloor 3.7 \rfloor == 3
\lceil 3.2 \rceil == 4
\frac{1}{x+1} == (x+1)^{-1}
\frac{a}{b} == a/b
\frac{x^2-1}{x-1} == x+1
\sqrt{x^2} == |x|
(-8)^{1/3} == -2
\sqrt[3]{-8} == -2
i^2 == -1
(1+i)^2 == 2i
\frac{1}{i} == -i
{10 \choose 3} == 120
\frac{1}{0} == \frac{1}{0}
1.000 == 1
-\frac{7}{3} == \frac{-7}{3}
- \frac{7}{3} == -7/3
x_1 + x_2 == x_2+x_1
3\sqrt2 == \sqrt{18}
\frac{\sqrt{3}}{3} == \frac{1}{\sqrt{3}}
3~1/2 == 7/2
-1 \pm i == -1+i, -1-i
\frac{-1 \pm \sqrt{5}}{2} == \frac{-1+\sqrt5}{2}, \frac{-1-\sqrt5}{2}
10 R 3 == 10 R 3
x^10 == x^{10}
4^{1/2} == 2
27^{2/3} == 9
(-1)^{1/3} == -1
\sqrt[4]{16} == 2
\sqrt[n]{x} == x^{1/n}
\sqrt{x}\sqrt{x} == x
\sqrt{18} == 3\sqrt{2}
\sqrt{5+2\sqrt6} == \sqrt2+\sqrt3
\frac{1}{\sqrt{3}-1} == \frac{\sqrt3+1}{2}
e^{i\pi} == -1
e^{i\pi/2} == i
3 + 4i == 4i+3
i^{2} == -1
\frac{3+i}{2} == 1.5+0.5i
|3+4i| == 5
n(n+1)/2 == \frac{n^2+n}{2}
x^2+2x+1 == (x+1)^2
ab == ba
2ab == 2ba
a+b+c == c+b+a
-(a-b) == b-a
\frac{a}{b}+\frac{c}{d} == \frac{ad+bc}{bd}
2(x+1) == 2x+2
0.5x == x/2
1.5x == \frac{3x}{2}
\frac{2}{3}x == 2x/3
(x) == x
[x] == x
\lfloor 2.7 \rfloor == 2
1\frac{1}{2} == 1.5
0 == 0.00
0.1+0.2 == 0.3
1/3 + 1/6 == 1/2
5 - 2 == 3
-5^2 == -25
(-5)^2 == 25
2 \div 3 == 2/3
6 \div 2 \times 3 == 9
5 == 5.0
5 == 5.
.5 == 0.5
1{,}200 == 1200
\frac{3}{4} == 3/4
\frac34 == 0.75
\dfrac{3}{4} == \tfrac 34
-\frac{1}{2} == \frac{-1}{2}
1\frac{1}{2} == 3/2
2\sqrt{9} == 6
\frac{\sqrt6}{3} == \frac{\sqrt{6}}3
2**3 == 8
pi == \pi
x+y == y+x
x^2-1 == (x-1)(x+1)
1210_5 == 1210_{5}
1/2x == x/2
2/3 x == \frac{2x}{3}
3/4\pi == \frac{3\pi}{4}
9 \frac{6}{7} == \frac{69}{7}
2 \sqrt{3} == \sqrt{12}
5 GB == 5
1101_2 != 1101
e^{100} != e^{101}
e^{-100} != e^{-101}
a/b != b/a
\sqrt{x^2} != x
5 to 7 != 5
5-7 != 5
x != 5
5x != 5
5m != 5
2 xy != 2
\frac{5}{0} != 5
0/0 != 0
3^{2007} != 5^{2007}
9^{9^9} != 9^{81}
9^{9^9} != 9^{9^8}
3\pi != 3
3\pi != \pi
1 \pm 2 != 3
10 R 3 != 10 R 4
T != F
C: 5 != 5
x^{10} != x^{1}0
\sqrt{18} != 3\sqrt{3}
\sqrt{2}+\sqrt{3} != \sqrt{5}
\sqrt[3]{2} != \sqrt{2}
ab != a
a-b != b-a
x^2 != x^3
x != X
_6C_2 != 14
5 != 6
5 != -5
0.33 != 1/3
3m != 3
\frac{1}{0} != \frac{2}{0}
\sqrt{5} != \sqrt{6}
1210_5 != 1210_6
C != D
a != b
1210_5 != 1210
3 of 4 != 3
5 or 6 != 5
\pi != \frac{22}{7}
3^{1000} != 3^{1001}
A != B
i != -i
1+i != 1-i
|x| != x
x^{-1} != -x
\frac{a}{b} != \frac{b}{a}
a^b != b^a
\sqrt[3]{x} != \sqrt{x}
\pm 3 != 3
\pm 3 != -3
x_1 != x_2
a_n != a_{n+1}
\hat{x} != x
\vec{v} != v
f'(x) != f(x)
x' != x
1210_5 != 1210_7
1101_2 != 13
1.2.3 != 1.2
5- != 5
5? != 6
5'6" != 5
(5) != -5
5^{\circ} 30' != 5
2 x != 2
2x != 2
5 ' != 6
""",
    "words and choices": r"""
18 mpg == 18
\textcolor{blue}{7} == 7
{\color{red} 7} == 7
\textbf{7} == 7
(C) == C
\text{(C)} == \textbf{C}
Tuesday == \text{tuesday}
heads and tails == tails and heads
\text{East} == east
\text{None} == none
undefined == \text{undefined}
June 20 == \text{June 20}
\color{blue}{5} == 5
\colorbox{yellow}{5} == 5
\text{no solution} == no solution
\textstyle\frac12 == 1/2
3\text{ } 1/2 == 3.5
1,200 and 300 == 300, 1200
red and blue == blue, red
red or blue == red or blue
A, B and C == C, B, A
A, B, C == A and B and C
1, 2 and 3 == 1,2,3
2 and -2 == \pm 2
10 remainder 3 == 10 remainder 3
10\text{ remainder }3 == 10 remainder 3
DNE == dne
A) == A
\textbf{(A)} == A
all of the above == All of the above
monday == Monday
isosceles triangle == \text{Isosceles triangle}
John Smith == John  Smith
abc == cab
xyz == zyx
sqrt(2) == \sqrt2
2\text{ and }3 == 2,3
\text{(B)} == B
(C) == \text{C}
\text{Tuesday} == tuesday
Yes == yes.
\text{A,C} == C, A
5 J == 5 joules
5 kWh == 5
2 weeks == 14 days
5 pence == 5
100 rupees == Rs. 100
12 noon != 5
C != (D)
option C != D
Tuesday != Wednesday
yes != no
May 5 != 5
June 20 != June 21
5 or more != 5
at most 5 != 5
10 remainder 3 != 10
10 more than x != 10
twice as many != 2
red, blue != red, green
A and B != A and C
2\text{ to }3 != 2
true != false
(A) != (B)
A. != B.
None of the above != A
acute != obtuse
5 and 7 != 7
2 or more != 2
\text{A,C} != \text{A,D}
6 cats != 6 dogs
3 over 4 != 3
3 out of 4 != 3
between 5 and 6 != 5
5 plus x != 5
5 times 3 != 5
5 and 1/2 != 5
5 point 2 != 5
"12" == 12
12, == 12
5\\ == 5
June 20 == June 20th
June 20, 2023 == June 20 2023
no real solutions == no solution
\varnothing == \text{no solution}
June 20, 2023 != June 21 2023
no solution != 0
5, ... != 5
5,6,... != 5,6
noon != midnight
Monday != Friday
about 5 != 6
no != yes
not 5 != 5
5 not != 5
xyz != x
""",
}
PAIRS = [
    (kind, *line.partition(sign))
    for kind, lines in KINDS.items()
    for line in lines.strip().splitlines()
    for sign in (" == ", " != ")
    if sign in line
]


@pytest.mark.parametrize(("kind", "a", "sign", "b"), PAIRS)
def test_pairs(kind, a, sign, b):
    assert verdict(a, b) is verdict(b, a) is (sign == " == ")


@pytest.mark.parametrize(("a", "b"), [("", "5"), ("", "0"), (" ", "x")])
def test_nothing_equals_no_answer(a, b):
    assert verdict(a, b) is verdict(b, a) is False
    assert verdict(a, a) is True


def test_numbers_and_words_are_told_apart():
    assert words(r"\text{east}") == "east"
    assert words("C") is words("x+y") is words("three") is words("$x$") is None
    for number in (r"-1{,}250.50 \text{ dollars}", r"\frac{3}{4}", "3 million", "1 1/2", r"5\%", "12 cm"):
        assert is_number(number), number
    for other in ("(1,2)", r"\frac{1}{0}", "x", r"\sqrt{2}", "Tuesday", "9" * 400):
        assert not is_number(other), other


# --- bounded work -----------------------------------------------------------------------------------------------

EXPLOSIVE = [
    r"9^{9^{9^9}}",
    "9**9**9**9",
    "(((((9^99)^99)^99)^99)^99)^{9^{9^9}}",
    r"10^{99999999999999}",
    r"9^\frac{999999999999999}{1}",
    "(99!)!",
    "3!!!!!",
    r"\binom{100000000}{50000000}",
    "1e999999999",
    r"\sin(10^{99999})",
    "(" * 40 + "1+x" + ")" * 40,
    "|" * 200,
    r"\sqrt" * 50 + "2",
    r"\sum_{k=1}^{1000000000} k^{k}",
    r"\int_0^1 e^{\sin(\cos(x^x))} dx",
    r"\lim_{x \to 0} \frac{\sin x}{x}",
]


@pytest.mark.parametrize("answer", EXPLOSIVE)
def test_what_would_explode_is_equal_to_its_own_text_only(answer):
    assert verdict(answer, rf"$\displaystyle {answer}$") is True
    assert verdict(answer, "7") is verdict("7", answer) is None


@pytest.mark.parametrize(
    ("answer", "near"),
    [
        ("2^{100000}", "2^{100001}"),
        ("7^{7^7}", "7^{49}"),
        ("9^{9^9}", "9^{81}"),
        ("2^{9999}+1", "2^{9999}+2"),
        (r"\frac{2^{2005}+1}{3 \cdot 2^{2006}}", r"\frac{1}{3\cdot 2^{2006}}"),
        (r"\frac{1}{2004!}", r"\frac{1}{2005!}"),
        ("(x+1)" * 60, "(x+1)" * 59),
        (r"x^{50}+y^{50}=\sin(x)^{30}", r"x^{50}+y^{50}=\sin(x)^{31}"),
        ("(x+y+z+w)^{9999}", "(x+y+z)^{9999}"),
        ("7" * 4000, "7" * 3999 + "8"),
    ],
)
def test_large_values_are_told_apart(answer, near):
    assert verdict(answer, near) is verdict(near, answer) is False


def test_what_is_rounded_and_agrees_is_not_called_equal():
    assert verdict("2^{100000}+1", "2^{100000}") is None
    assert verdict("2^{100000}", "(2^{10})^{10000}") is None


def test_verdicts_are_those_of_any_thread():
    cases = [(r"\sin^2 t+\cos^2 t", "1"), (r"\int_0^1 e^{\cos(\sin(x^x))} dx", "7"), (r"2\sqrt{25}", "10.0")]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pair: verdict(*pair), cases * 20))
    assert found == [True, None, True] * 20


# --- properties -------------------------------------------------------------------------------------------------

PIECES = [
    *"0123456789abxyACi .,:;+-*/^_=<>()[]{}|\\$%!'\"°√π½",
    *(r"\frac", r"\sqrt", r"\text{", r"\pm", r"\cup", r"\in", r"\sin", r"\infty", r"\begin{pmatrix}", r"\end{pmatrix}"),
    *(r"\\", "&", " cm", " and ", " million", " per ", "p.m.", r"\{", r"\}", r"\overline", r"\binom", r"\pmod"),
]
ANYTHING = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=25).map("".join))


@given(ANYTHING, ANYTHING)
@settings(max_examples=500, deadline=None)
def test_comparing_never_raises_and_is_symmetric(a, b):
    assert verdict(a, b) is verdict(b, a)


@given(ANYTHING)
@settings(max_examples=500, deadline=None)
def test_comparing_is_reflexive(text):
    assert verdict(text, text) is True
    assert verdict(text, f" {text}\n") is True


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
@settings(max_examples=100, deadline=None)
def test_fractions_are_compared_exactly(a, b):
    assert verdict(f"{a.numerator}/{a.denominator}", rf"\frac{{{b.numerator}}}{{{b.denominator}}}") is (a == b)


@given(st.decimals(-(10**9), 10**9, places=6), st.integers(0, 40))
@settings(deadline=None)
def test_decimals_are_compared_exactly(value, power):
    digits = f"{value:f}"
    assert verdict(digits, f"{digits}000") is True
    assert verdict(digits, f"{digits}1") is False
    assert verdict(rf"{digits} \cdot 10^{{{power}}}", f"{digits}e{power}") is True


@given(st.integers(1, 10**6), st.sampled_from(sorted(unit for unit in UNITS if unit.isalpha())))
@settings(deadline=None)
def test_a_unit_may_be_left_out_and_must_not_differ(value, unit):
    assert verdict(rf"{value} \text{{ square {unit} }}", str(value)) is True
    assert verdict(rf"{value} \text{{ square {unit} }}", rf"{value} \text{{ furlongs }}") is False


# --- real answers -----------------------------------------------------------------------------------------------


def _math_answers():
    path = data_dir() / "EleutherAI/hendrycks_math/test.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return sorted({json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()})


def test_every_answer_of_math_is_read_and_equals_itself():
    answers = _math_answers()
    unread = [answer for answer in answers if read(answer).kind == "text" and words(answer) is None]
    assert unread == [r"\text{June 20}"]
    assert all(verdict(answer, rf"$\displaystyle {answer}$") is True for answer in answers)


def test_answers_of_math_differ_unless_they_are_the_same_number():
    """Of a sample of pairs; those that are equal differ in notation or in a unit."""
    rng = random.Random(0)
    answers = _math_answers()
    pairs = [rng.sample(answers, 2) for _ in range(3000)]
    assert all(verdict(*pair) is verdict(*reversed(pair)) for pair in pairs)
    assert sum(verdict(*pair) is not False for pair in pairs) <= 3


def test_a_double_superscript_is_undecided():
    assert verdict("2^{3}^{2}", "512") is None
    assert verdict("2^{3^{2}}", "512") is True
